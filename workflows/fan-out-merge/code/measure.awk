# How many points lie within the quarter circle, and how many there are.
$1 * $1 + $2 * $2 < 1 { inside++ }
END { printf "%d %d\n", inside, NR }
