# The number pi from all samples together, with its binomial error.
function root(x,    guess, step) {    # Newton's: this awk is built without sqrt
    guess = x > 1 ? x : 1
    for (step = 0; step < 60; step++)
        guess = (guess + x / guess) / 2
    return guess
}
{
    inside += $1
    points += $2
}
END {
    share = inside / points
    printf "{\"inside\": %d, \"pi\": %.6f, \"pi_error\": %.6f, \"points\": %d, \"samples\": %d}\n",
        inside, 4 * share, 4 * root(share * (1 - share) / points), points, NR
}
