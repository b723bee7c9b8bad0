"""Documents for readers, derived from an archive's contents: values to bytes. No disk, no network, no clock.

``verify`` derives them again and compares, so nothing but the contents may enter.
"""
