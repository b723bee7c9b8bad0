# Counts numbers, one a line, in bins of `width` from `low` to `high`: lower edge, upper edge, count.
$1 >= low && $1 < high { count[int(($1 - low) / width)]++ }
END {
    bins = int((high - low) / width + 0.5)
    for (bin = 0; bin < bins; bin++)
        printf "%.2f %.2f %d\n", low + bin * width, low + (bin + 1) * width, count[bin]
}
