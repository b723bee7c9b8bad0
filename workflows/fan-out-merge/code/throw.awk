# Random points in the unit square: x and y, one point a line. The generator is written out (Park and Miller's, whose
# products stay below 2^53), because rand() of one awk is not that of another.
function uniform() {
    state = (16807 * state) % 2147483647
    return state / 2147483647
}
BEGIN {
    state = seed
    for (warm = 0; warm < 10; warm++)    # neighbouring seeds begin alike
        uniform()
    for (point = 0; point < throws; point++) {
        x = uniform()
        printf "%.9f %.9f\n", x, uniform()
    }
}
