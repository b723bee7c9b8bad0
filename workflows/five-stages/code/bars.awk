# Draws a histogram (lower edge, upper edge, count): one line per bin, one # per entry.
{
    bar = ""
    for (entry = 0; entry < $3; entry++)
        bar = bar "#"
    printf "%6.1f %s\n", $1, bar
}
