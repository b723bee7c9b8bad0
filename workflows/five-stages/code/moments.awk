# Mean, its error and the standard deviation of a histogram: lower edge, upper edge, count. Units are the edges'.
function root(x,    guess, step) {    # Newton's: this awk is built without sqrt
    guess = x > 1 ? x : 1
    for (step = 0; step < 60; step++)
        guess = (guess + x / guess) / 2
    return guess
}
{
    centre = ($1 + $2) / 2
    entries += $3
    sum += $3 * centre
    squares += $3 * centre * centre
}
END {
    if (entries < 2) {
        print "moments.awk: fewer than two entries" > "/dev/stderr"
        exit 1
    }
    mean = sum / entries
    spread = root((squares - entries * mean * mean) / (entries - 1))
    printf "{\"entries\": %d, \"mean\": %.6f, \"mean_error\": %.6f, \"spread\": %.6f}\n",
        entries, mean, spread / root(entries), spread
}
