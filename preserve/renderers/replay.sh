#
# How to use it:
#     unzip -p ARCHIVE.crate.zip data/replay.sh | sh -s -- ARCHIVE.crate.zip
#     sh data/replay.sh                      (in the unpacked archive)
#     sh data/replay.sh -h                   (all options)
#
# What it does: it checks the digest of every file of the archive; hands the images to Docker or Apptainer; runs each
# step in a container that sees its declared inputs (read-only), the folders of its products, and nothing else of this
# machine; and compares the sha256 of each product with the one that was recorded. It needs sh, unzip, sha256sum and
# what every Unix has (find, sed, awk, sort, comm, tar), and one of the two engines.
#
# How to read it: first the functions that do it, then, at the end, what the author declared: images, inputs, steps.
# Exit code: 0 all results identical, 1 not all, 2 wrong use, 3 engine or image missing, 4 a step failed,
#            5 bytes are not what their digest says, 130 interrupted.

set -eu
umask 022
export LC_ALL=C
unset CDPATH UNZIP UNZIPOPT ZIPINFO TAR_OPTIONS GREP_OPTIONS

usage() {
    cat <<'END'
usage: sh replay.sh [options] [ARCHIVE]       ARCHIVE: the .crate.zip, or the folder it was unpacked to

  --engine docker|apptainer   which engine to use (default: docker if it answers, else apptainer or singularity)
  --keep DIR                  work in DIR (new or empty), and leave the products and logs there
  --input PATH=FILE           where the bytes of an input are that the archive does not hold
  --pull                      fetch an image that neither the archive nor the engine has, by its digest
  --allow-network             let the steps that declared it use the network
  -h, --help                  this text
END
}

say() { printf '%s\n' "$*" >&2; }

# Texts that others wrote must not control this terminal.
plain() { tr '\000-\010\013-\037\177' '?'; }

stop() { # exit code, message
    stop_code=$1
    shift
    printf 'replay.sh: %s\n' "$*" | plain >&2
    exit "$stop_code"
}

# ---------------------------------------------------------------- command line, and where we work

read_arguments() {
    archive='' engine='' keep='' pull=no allow_network=no givens=0
    while [ $# -gt 0 ]; do
        case $1 in
            --engine | --keep | --input)
                [ $# -gt 1 ] || stop 2 "$1 needs a value"
                option "$1" "$2"
                shift
                ;;
            --engine=* | --keep=* | --input=*) option "${1%%=*}" "${1#*=}" ;;
            --pull) pull=yes ;;
            --allow-network) allow_network=yes ;;
            -h | --help) usage && exit 0 ;;
            -*) stop 2 "unknown option $1 (see -h)" ;;
            *)
                [ -z "$archive" ] || stop 2 "more than one archive: $archive and $1"
                archive=$1
                ;;
        esac
        shift
    done
}

option() { # name, value
    case $1 in
        --engine)
            case $2 in docker | apptainer | singularity) engine=$2 ;; *) stop 2 "no engine $2: docker or apptainer" ;; esac
            ;;
        --keep) keep=$2 ;;
        --input)
            case $2 in ?*=?*) ;; *) stop 2 "--input $2: write PATH=FILE" ;; esac
            givens=$((givens + 1))
            case ${2#*=} in /*) eval "given_$givens=\$2" ;; *) eval "given_$givens=\${2%%=*}=\$(pwd -P)/\${2#*=}" ;; esac
            ;;
    esac
}

find_archive() {
    if [ -z "$archive" ]; then
        case $0 in
            */data/replay.sh) archive=${0%/data/replay.sh} ;;
            data/replay.sh) archive=. ;;
            */replay.sh) archive=${0%/replay.sh}/.. ;;
            replay.sh) archive=.. ;;
            *) stop 2 "name the archive (see -h)" ;;
        esac
    fi
    [ -e "$archive" ] || stop 2 "there is no $archive"
    case $archive in /*) ;; *) archive=$(pwd -P)/$archive ;; esac
}

make_work() {
    if [ -n "$keep" ]; then
        mkdir -p -- "$keep" || stop 2 "cannot make the folder $keep"
        work=$(cd -- "$keep" && pwd -P)
        [ -z "$(ls -A -- "$work")" ] || stop 2 "the folder $keep is not empty"
    else
        temporary=$(mktemp -d "${TMPDIR:-/tmp}/replay.XXXXXXXX") || stop 3 "cannot make a temporary folder"
        work=$(cd -- "$temporary" && pwd -P)
    fi
    bag='' running='' container='' number=0 loaded=no
    analysis=$work/analysis folder=$work/step
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -p "$analysis" "$work/engine/tmp"
    # what a container without network has in /etc: an address for look-ups that leads nowhere
    printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$work/engine/hosts"
    echo 'nameserver 192.0.2.1' >"$work/engine/resolv.conf"
}

clean_up() {
    code=$?
    trap '' INT TERM HUP
    trap - EXIT
    set +e
    end_container
    remove "$folder"
    remove "$work/engine"
    remove "$work/archive"
    [ -n "$keep" ] || remove "$work"
    exit "$code"
}

# Steps and images may leave folders without the right to write in them.
remove() {
    [ -d "$1" ] || return 0
    rm -rf -- "$1" 2>/dev/null && return 0
    find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
    rm -rf -- "$1"
}

# ---------------------------------------------------------------- digests, before anything else looks at the bytes

unpack() {
    if [ -d "$archive" ]; then
        bag=$(cd -- "$archive" && pwd -P)
        return 0
    fi
    command -v unzip >/dev/null || stop 3 "unzip is missing"
    say "unpacking the archive"
    bag=$work/archive
    mkdir "$bag"
    ln -s -- "$archive" "$work/engine/archive.zip" # unzip would take a * or [ in the name for a pattern
    unzip -q "$work/engine/archive.zip" -d "$bag" </dev/null || stop 5 "$archive cannot be unpacked"
}

check_digests() {
    command -v sha256sum >/dev/null || stop 3 "sha256sum is missing"
    say "checking digests"
    cd -- "$bag"
    [ -f tagmanifest-sha256.txt ] && [ -f manifest-sha256.txt ] || stop 5 "$archive is no archive of an analysis"
    odd=$(find . ! -type f ! -type d | head -n 1)
    [ -z "$odd" ] || stop 5 "$odd is neither a file nor a folder"
    find . -type f ! -path './data/*' ! -path './signatures/*' ! -path ./tagmanifest-sha256.txt >"$work/engine/files"
    check_list tagmanifest-sha256.txt
    find ./data -type f >"$work/engine/files"
    check_list manifest-sha256.txt
    check_blobs
    identity=$(sha256sum <tagmanifest-sha256.txt)
    say "archive id sha256:${identity%% *}"
}

check_list() { # a file of lines "sha256  name", which must name each of the files found, once
    bad=$(grep -v '^[0-9a-f]\{64\}  [A-Za-z0-9._+=@/-]*$' "$1" | head -n 1) || :
    [ -z "$bad" ] || stop 5 "$1 has a malformed line: $bad"
    sed 's,^\./,,' "$work/engine/files" | sort >"$work/engine/found"
    sed 's/^[^ ]*  //' "$1" | sort >"$work/engine/listed"
    bad=$(comm -23 "$work/engine/found" "$work/engine/listed" | head -n 1)
    [ -z "$bad" ] || stop 5 "$bad is in the archive but not in $1"
    bad=$(comm -13 "$work/engine/found" "$work/engine/listed" | head -n 1)
    [ -z "$bad" ] || stop 5 "$bad is in $1 but not in the archive, or twice"
    sha256sum -c "$1" >"$work/engine/checked" 2>&1 && return 0
    grep ': FAILED' "$work/engine/checked" | head -n 20 | plain >&2 || :
    stop 5 "the files above are not what $1 says"
}

# A blob of an image is called by its digest; the digest of the image's manifest stands in this script.
check_blobs() {
    bad=$(sed -n 's,^\([0-9a-f]*\)  data/oci/blobs/sha256/\(.*\)$,\1 \2,p' manifest-sha256.txt |
        while read -r digest name; do [ "$digest" = "$name" ] || echo "$name"; done | head -n 1)
    [ -z "$bad" ] || stop 5 "the blob $bad of the images has other content"
}

# ---------------------------------------------------------------- inputs, laid out as the author had them

inside() { # path in the analysis, name in the archive, sha256, x if it may be executed
    printf '%s  %s\n' "$3" "$2" >>"$work/engine/declared"
    make_parent "$analysis" "$1"
    if [ "$bag" = "$work/archive" ]; then
        ln -- "$bag/$2" "$analysis/$1" 2>/dev/null || cp -- "$bag/$2" "$analysis/$1"
    else
        cp -- "$bag/$2" "$analysis/$1"
    fi || stop 3 "cannot lay out the input $1 in $work"
    [ -z "${4:-}" ] || [ -x "$analysis/$1" ] || chmod a+x -- "$analysis/$1"
}

absent() { # path in the analysis, sha256, size in bytes, where it came from, x if it may be executed
    file=''
    while [ "$givens_tried" -lt "$givens" ]; do
        givens_tried=$((givens_tried + 1))
        eval "given=\$given_$givens_tried"
        case $given in "$1="*) file=${given#"$1="} ;; esac
    done
    givens_tried=0
    if [ -z "$file" ]; then
        say "missing: $1   $3 bytes, sha256:$2, from $4"
        missing=$((missing + 1))
        return 0
    fi
    [ -f "$file" ] || stop 2 "there is no file $file for the input $1"
    make_parent "$analysis" "$1"
    cp -- "$file" "$analysis/$1" || stop 3 "cannot copy $file to $work"
    found=$(sha256sum <"$analysis/$1")
    [ "${found%% *}" = "$2" ] || stop 5 "$file is not the input $1: expected sha256:$2, found sha256:${found%% *}"
    [ -z "${5:-}" ] || chmod a+x -- "$analysis/$1"
}

lay_out_inputs() {
    missing=0 givens_tried=0
    : >"$work/engine/declared"
    inputs
    sort "$work/engine/declared" >"$work/engine/found"
    sort "$bag/manifest-sha256.txt" >"$work/engine/listed"
    bad=$(comm -23 "$work/engine/found" "$work/engine/listed" | head -n 1)
    [ -z "$bad" ] || stop 5 "the archive holds another ${bad#*  } than the analysis read (sha256:${bad%%  *})"
    [ "$missing" -eq 0 ] || stop 2 "the archive does not hold $missing of the inputs (above): give each as --input PATH=FILE"
}

make_parent() { # folder, path below it
    case $2 in */*) mkdir -p -- "$1/${2%/*}" ;; esac
}

# ---------------------------------------------------------------- the engine

choose_engine() {
    case $engine in
        docker) find_docker || stop 3 "no Docker engine answers${host:+ at $host}" ;;
        apptainer | singularity) find_apptainer || stop 3 "no program apptainer or singularity, or it does not work" ;;
        *)
            if find_docker; then
                engine=docker
            elif find_apptainer; then
                engine=apptainer
            else
                stop 3 "neither a Docker engine answers nor apptainer or singularity works: install one of them"
            fi
            ;;
    esac
    if [ "$engine" != docker ]; then
        engine=apptainer
        case $work in *[\"\'\\]*) stop 2 "$program cannot work below $work: it has a quote or a backslash (see --keep)" ;; esac
    fi
    say "engine: $engine $version"
}

find_docker() {
    host=''
    command -v docker >/dev/null || return 1
    host=${DOCKER_HOST:-}
    [ -n "$host" ] || host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || host=''
    [ -n "$host" ] || host=unix:///var/run/docker.sock
    version=$(call_docker version --format '{{.Server.Version}}' 2>/dev/null) || return 1
    user=$(id -u):$(id -g)
    # root in a rootless engine is the caller outside
    case $(call_docker info --format '{{.SecurityOptions}}' 2>/dev/null) in *name=rootless*) user=0:0 ;; esac
}

# Without the caller's settings: they may add variables (proxies) to each container.
call_docker() {
    env -i PATH="$PATH" HOME="$work/engine" DOCKER_CONFIG="$work/engine" DOCKER_HOST="$host" docker "$@" </dev/null
}

find_apptainer() {
    program=$(command -v apptainer || command -v singularity) || return 1
    version=$(call_apptainer --version) || return 1
    case $version in apptainer*) prefix=APPTAINER ;; *) prefix=SINGULARITY ;; esac
    version=${version#apptainer version }
}

# With a cache of its own, and without the variables by which the engine takes more options.
call_apptainer() {
    scratch=$work/engine
    env -i PATH="$PATH" HOME="$scratch" TMPDIR="$scratch/tmp" \
        APPTAINER_CACHEDIR="$scratch/tmp" APPTAINER_TMPDIR="$scratch/tmp" \
        APPTAINER_CONFIGDIR="$scratch/tmp" \
        SINGULARITY_CACHEDIR="$scratch/tmp" SINGULARITY_TMPDIR="$scratch/tmp" \
        SINGULARITY_CONFIGDIR="$scratch/tmp" \
        "$program" "$@" </dev/null
}

# ---------------------------------------------------------------- images

image() { # number, name, digest of the manifest, digest of the config, name in a registry ('': none), reference
    image_name=$2 manifest=$3 config=$4 registry=$5 reference=$6
    say "image $image_name (sha256:$manifest)"
    if [ "$engine" = docker ]; then
        docker_image "$1"
    else
        apptainer_image "$1"
    fi
}

docker_image() { # number
    if ! find_in_docker && [ "$loaded" = no ] && [ -d "$bag/data/oci" ]; then
        tar -cf - -C "$bag/data/oci" . | call_docker_load
        loaded=yes
    fi
    if ! find_in_docker && [ -n "$registry" ] && [ "$pull" = yes ]; then
        DOCKER_HOST=$host docker pull "$registry@sha256:$manifest" </dev/null >&2 || :
    fi
    find_in_docker || no_image
    eval "image_$1=\$image_id"
}

call_docker_load() {
    env -i PATH="$PATH" HOME="$work/engine" DOCKER_CONFIG="$work/engine" DOCKER_HOST="$host" docker load >/dev/null
}

# A loaded image is known by its config's digest, or (with the containerd store) by its manifest's.
find_in_docker() {
    for image_id in "sha256:$config" "sha256:$manifest"; do
        [ "$(call_docker image inspect --format '{{.Id}}' "$image_id" 2>/dev/null)" != "$image_id" ] || return 0
    done
    return 1
}

no_image() {
    say "the image $image_name ($reference) is not there. Its manifest is sha256:$manifest, its config sha256:$config."
    [ -z "$registry" ] || [ "$pull" = yes ] || say "To fetch it from its registry, add --pull."
    stop 3 "no image $image_name"
}

apptainer_image() { # number
    tree=$work/engine/image-$1 plain_http=''
    if [ -f "$bag/data/oci/blobs/sha256/$manifest" ]; then
        one_image_layout "$work/engine/layout-$1"
        from=oci:layout-$1
    elif [ -n "$registry" ] && [ "$pull" = yes ]; then
        from=docker://$registry@sha256:$manifest
        case $registry in localhost[:/]* | 127.*) plain_http=--no-https ;; esac
    else
        no_image
    fi
    # in that folder: a colon in its path would be taken for the end of it
    (cd "$work/engine" && call_apptainer --silent build ${plain_http:+"$plain_http"} --sandbox "image-$1" "$from" >&2) ||
        stop 3 "$program could not build the image $image_name"
    find_config
    read_environment "$config_file" >"$tree.env"
    adapt
    eval "image_$1=\$tree"
}

# The image's configuration: in the archive, or in the private cache of an engine that has fetched it.
find_config() {
    config_file=$bag/data/oci/blobs/sha256/$config
    [ -f "$config_file" ] || config_file=$(find "$work/engine/tmp" -type f -name "$config" | head -n 1)
    [ -n "$config_file" ] || stop 3 "$program fetched the image $image_name, but keeps no configuration of it"
    found=$(sha256sum <"$config_file")
    [ "${found%% *}" = "$config" ] || stop 5 "the configuration of the image $image_name has other content"
}

# A layout of this image alone: the engine does not choose among several.
one_image_layout() { # folder
    blob=$bag/data/oci/blobs/sha256/$manifest
    kind=application/vnd.oci.image.manifest.v1+json
    ! grep -q 'application/vnd.docker.distribution.manifest.v2+json' "$blob" ||
        kind=application/vnd.docker.distribution.manifest.v2+json
    size=$(($(wc -c <"$blob")))
    mkdir -p "$1"
    ln -s "$bag/data/oci/blobs" "$1/blobs"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"sha256:%s","size":%s}]}' \
        "$kind" "$manifest" "$size" >"$1/index.json"
}

# The list config.Env of an image's configuration (JSON), as lines  setting NAME 'value'  for this shell.
read_environment() { # file
    # shellcheck disable=SC2016
    awk '
        function byte(n) { return sprintf("%c", n) }
        function utf8(n) {
            if (n < 128) return byte(n)
            if (n < 2048) return byte(192 + int(n / 64)) byte(128 + n % 64)
            if (n < 65536) return byte(224 + int(n / 4096)) byte(128 + int(n / 64) % 64) byte(128 + n % 64)
            return byte(240 + int(n / 262144)) byte(128 + int(n / 4096) % 64) byte(128 + int(n / 64) % 64) byte(128 + n % 64)
        }
        function hex(at,    n, k) {
            for (k = 0; k < 4; k++) n = 16 * n + index("0123456789abcdef", tolower(substr(text, at + k, 1))) - 1
            return n
        }
        function string(    out, c, n) { # reads the string whose quote is at i; i is at its end afterwards
            for (i++; i <= size; i++) {
                c = substr(text, i, 1)
                if (c == "\"") return out
                if (c != "\\") { out = out c; continue }
                c = substr(text, ++i, 1)
                if (c == "u") {
                    n = hex(i + 1); i += 4
                    if (n >= 55296 && n < 56320) { n = 65536 + (n - 55296) * 1024 + hex(i + 3) - 56320; i += 6 }
                    out = out utf8(n)
                } else out = out (c == "n" ? "\n" : c == "t" ? "\t" : c == "r" ? "\r" : c == "b" ? "\b" : c == "f" ? "\f" : c)
            }
            return out
        }
        function show(entry,    at, name, value) {
            at = index(entry, "=")
            name = substr(entry, 1, at - 1)
            value = substr(entry, at + 1)
            gsub(/\047/, "\047\\\047\047", value)
            if (name ~ /^[A-Za-z_][A-Za-z0-9_]*$/) printf "setting %s \047%s\047\n", name, value
        }
        { text = text $0 "\n" }
        END {
            size = length(text)
            for (i = 1; i <= size; i++) {
                c = substr(text, i, 1)
                if (c == "{" || c == "[") key[++depth] = ""
                else if (c == "}" || c == "]") depth--
                else if (c == "\"") {
                    found = string()
                    rest = substr(text, i + 1, 64)
                    if (rest ~ /^[ \t\r\n]*:/) key[depth] = found
                    else if (depth == 3 && key[1] == "config" && key[2] == "Env") show(found)
                }
            }
        }' "$1"
}

# In place of the engine's own start-up scripts, one that exports what the step may see and nothing else.
adapt() {
    chmod u+rwx "$tree"
    rm -rf "$tree/.singularity.d"
    for link in .exec .run .shell .test environment singularity; do
        case $(readlink "$tree/$link" 2>/dev/null) in .singularity.d/*) rm -f "$tree/$link" ;; esac
    done
    mkdir -p "$tree/.singularity.d/env"
    [ -d "$tree/work" ] || mkdir "$tree/work"
    start_script >"$tree/.singularity.d/env/00-replay.sh"
    for name in passwd group; do # the image's own, not this machine's
        : >"$tree.$name"
        [ -L "$tree/etc" ] || [ -L "$tree/etc/$name" ] || [ ! -f "$tree/etc/$name" ] || cat "$tree/etc/$name" >"$tree.$name"
    done
}

# Read by the engine's interpreter in the container. Some names the engine treats its own way: they come as REPLAY_*.
start_script() {
    case $prefix in APPTAINER) echo 'source "/.inject-apptainer-env.sh"' ;; *) echo 'source "/.inject-singularity-env.sh"' ;; esac
    echo 'unset HOME PATH LD_LIBRARY_PATH PREPEND_PATH APPEND_PATH'
    for name in HOME PATH LD_LIBRARY_PATH PREPEND_PATH APPEND_PATH; do
        echo "if test -v REPLAY_$name; then export $name=\"\${REPLAY_$name}\"; fi; unset REPLAY_$name"
    done
    cat <<'END'
unset PWD OLDPWD OPTIND SINGULARITY_APPNAME
if ! command -v "$1" > /dev/null; then
    echo "$1: not found in the image" >&2
    exit 127
fi
exec "$@"
END
}

# ---------------------------------------------------------------- one step

step() { # id, number of its image
    id=$1 cpus=1 memory='' seconds='' network=no mounts=0 settings=0
    eval "image=\$image_$2"
    number=$((number + 1))
    say "[$number/$count] $id"
    remove "$folder"
    mkdir -p "$folder/in" "$folder/out" "$folder/tmp/work" "$work/logs/$id"
    log=$work/logs/$id
    [ "$engine" = docker ] || image_settings
}

# What every container has, then what its image says; Docker sees to both itself.
image_settings() {
    setting HOME /tmp
    setting HOSTNAME preserve
    setting PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    # shellcheck disable=SC1090
    . "$image.env"
}

# How many CPUs, how much memory (bytes), how long (seconds; '': no limit)
limits() { cpus=$1 memory=$2 seconds=$3; }

uses_network() { network=yes; }

setting() { # name and value of a variable that the step sees
    settings=$((settings + 1))
    eval "name_$settings=\$1 value_$settings=\$2"
}

reads() { # files; or folders, with / at the end
    for path; do
        case $path in
            */) (cd -- "$analysis" && find "./${path%/}" -type f -exec sh -c 'for file; do
                    mkdir -p -- "$0/${file%/*}" && { ln -- "$file" "$0/$file" 2>/dev/null || cp -p -- "$file" "$0/$file"; } || exit 1
                done' "$folder/in" {} +) ;;
            *)
                make_parent "$folder/in" "$path"
                ln -- "$analysis/$path" "$folder/in/$path" 2>/dev/null || cp -p -- "$analysis/$path" "$folder/in/$path"
                ;;
        esac || stop 3 "cannot lay out $path for the step $id"
    done
}

writes() { # folders in which the step may write; "." is the working folder itself
    [ "${1:-}" = . ] || mount in . ro
    for path; do
        mkdir -p -- "$folder/out/$path"
        [ "$path" = . ] || mkdir -p -- "$folder/in/$path"
        mount out "$path" rw
    done
}

also_makes() { # folders within those
    for path; do mkdir -p -- "$folder/out/$path"; done
}

protects() { # inputs that stand in a folder in which the step may write
    for path; do
        make_parent "$folder/out" "$path"
        if [ -d "$folder/in/$path" ]; then mkdir -p -- "$folder/out/$path"; else : >"$folder/out/$path"; fi
        mount in "$path" ro
    done
}

mount() { # in or out, path, ro or rw
    if [ "$2" = . ]; then
        bind "$folder/$1" /work "$3"
    else
        bind "$folder/$1/$2" "/work/$2" "$3"
    fi
}

bind() { # path here, path in the container, ro or rw
    mounts=$((mounts + 1))
    bound="type=bind,$(field "source=$1"),$(field "destination=$2")"
    [ "$3" = rw ] || bound=$bound,ro
    eval "mount_$mounts=\$bound"
}

# A field of comma-separated values, in which no character means anything.
field() { printf '"%s"' "$(printf '%s' "$1" | sed 's/"/""/g')"; }

runs() { # program and arguments
    code=0
    if [ "$network" = no ]; then
        for name in hosts resolv.conf; do bind "$work/engine/$name" "/etc/$name" ro; done
    fi
    if [ "$engine" = docker ]; then
        docker_runs "$@"
    else
        apptainer_runs "$@"
    fi
    [ "$code" -ne 137 ] || [ -z "$seconds" ] || failed "ended by a signal; its limit is $seconds seconds"
    [ "$code" -eq 0 ] || failed "exit code $code"
}

docker_runs() {
    set -- "$image" "$@"
    [ -z "$memory" ] || set -- --memory "$memory" --memory-swap "$memory" "$@"
    if [ "$network" = yes ]; then set -- --network host "$@"; else set -- --network none "$@"; fi
    while [ "$mounts" -gt 0 ]; do
        eval "set -- --mount \"\$mount_$mounts\" \"\$@\""
        mounts=$((mounts - 1))
    done
    while [ "$settings" -gt 0 ]; do
        eval "set -- --env \"\$name_$settings=\$value_$settings\" \"\$@\""
        settings=$((settings - 1))
    done
    container=replay-$$-$number
    start env -i PATH="$PATH" HOME="$work/engine" DOCKER_CONFIG="$work/engine" DOCKER_HOST="$host" docker run \
        --rm --name "$container" --pull never --read-only --init --user "$user" --workdir /work --hostname preserve \
        --entrypoint '' --cap-drop ALL --security-opt no-new-privileges --ipc private --shm-size 1g \
        --tmpfs /tmp:rw,exec,nosuid,nodev,size=8g,mode=1777 --tmpfs /var/tmp:rw,exec,nosuid,nodev,size=8g,mode=1777 \
        --pids-limit 4096 --cpu-period 100000 --cpu-quota $((100000 * cpus)) \
        --ulimit core=0 --ulimit nofile=1024:4096 --log-driver none "$@"
    end_container
}

apptainer_runs() {
    for name in passwd group; do bind "$image.$name" "/etc/$name" ro; done
    set -- "$image" "$@"
    [ "$network" = yes ] || set -- --net --network none --no-mount bind-paths "$@"
    if [ -n "$memory" ] && limits_hold; then
        set -- --memory "$memory" --memory-swap "$memory" --cpus "$cpus" --pids-limit 4096 "$@"
    fi
    while [ "$mounts" -gt 0 ]; do
        eval "set -- --mount \"\$mount_$mounts\" \"\$@\""
        mounts=$((mounts - 1))
    done
    set -- "$program" --silent exec --containall --no-home --cleanenv --no-eval --no-privs --hostname preserve \
        --workdir "$folder/tmp/work" --pwd /work "$@"
    # the engine sets these two to the image's place on this machine
    set -- "${prefix}ENV_${prefix}_NAME=" "${prefix}ENV_${prefix}_CONTAINER=" "$@"
    while [ "$settings" -gt 0 ]; do
        eval "name=\$name_$settings"
        case $name in HOME | PATH | LD_LIBRARY_PATH | PREPEND_PATH | APPEND_PATH) name=REPLAY_$name ;; esac
        eval "set -- \"\${prefix}ENV_\$name=\$value_$settings\" \"\$@\""
        settings=$((settings - 1))
    done
    start env -i PATH="$PATH" HOME="$folder/tmp" TMPDIR="$folder/tmp" \
        APPTAINER_CACHEDIR="$folder/tmp" APPTAINER_TMPDIR="$folder/tmp" APPTAINER_CONFIGDIR="$folder/tmp" \
        APPTAINER_DISABLE_CACHE=1 SINGULARITY_CACHEDIR="$folder/tmp" SINGULARITY_TMPDIR="$folder/tmp" \
        SINGULARITY_CONFIGDIR="$folder/tmp" SINGULARITY_DISABLE_CACHE=1 "$@"
}

# Control groups need root.
limits_hold() {
    [ "$(id -u)" -eq 0 ] && { [ -w /sys/fs/cgroup/memory ] || [ -w /sys/fs/cgroup/cgroup.subtree_control ]; }
}

# In the background, so that an interruption is heard at once.
start() { # program and arguments
    [ -z "$seconds" ] || set -- timeout -s KILL "$seconds" "$@"
    (
        ulimit -c 0 || :
        ulimit -S -n 1024 || :
        ulimit -H -n 4096 || :
        exec "$@"
    ) </dev/null >"$log/stdout" 2>"$log/stderr" &
    running=$!
    wait "$running" || code=$?
    running=''
}

end_container() {
    if [ -n "$running" ]; then
        # its group, if "timeout" made one: shells differ in how they want it said
        kill -s KILL -- "-$running" 2>/dev/null || kill -s KILL "-$running" 2>/dev/null
        kill -s KILL "$running" 2>/dev/null
    fi
    [ -z "$container" ] || call_docker rm -f -v "$container" >/dev/null 2>&1 || :
    running='' container=''
}

failed() { # reason
    say "step $id failed: $1; the end of what it printed:"
    { tail -n 20 "$log/stdout" && tail -n 20 "$log/stderr"; } | plain | sed 's/^/    | /' >&2
    [ -z "$keep" ] || say "all of it is in $log"
    stop 4 "step $id failed: $1"
}

# ---------------------------------------------------------------- products

makes() { # a file, its recorded sha256, and for a result what its author requires of a replay
    case $1 in */*) parent=$folder/out/${1%/*} ;; *) parent=$folder/out ;; esac
    [ "$(cd -- "$parent" 2>/dev/null && pwd -P)" = "$parent" ] || failed "it did not make $1"
    [ -f "$folder/out/$1" ] && [ ! -L "$folder/out/$1" ] || failed "it did not make $1, or made something else than a file"
    make_parent "$analysis" "$1"
    mv -- "$folder/out/$1" "$analysis/$1"
    finish "$analysis/$1"
    compare "$@"
}

makes_folder() { # a folder (with / at its end); the lines "compare" that follow tell what was in it
    found=$(cd -- "$folder/out/$1" 2>/dev/null && pwd -P) || found=''
    [ "$found/" = "$folder/out/$1" ] || failed "it did not make the folder $1"
    [ -z "$(find "$found" ! -type f ! -type d | head -n 1)" ] || failed "in $1 it made something else than files"
    made=${1%/}
    make_parent "$analysis" "$made"
    remove "${analysis:?}/$made"
    mv -- "$found" "$analysis/$made"
    finish "$analysis/$made"
}

# As in the recorded run, nobody writes in a product any more: a later step sees the same rights.
finish() { # a file or a folder
    find "$1" -type f -perm -100 -exec chmod 555 {} +
    find "$1" -type f ! -perm -100 -exec chmod 444 {} +
}

compare() { # a file, its recorded sha256, and for a result what its author requires of a replay
    if [ -f "$analysis/$1" ]; then
        found=$(sha256sum <"$analysis/$1")
        if [ "${found%% *}" = "$2" ]; then verdict=identical; else verdict=different; fi
    else
        verdict=missing
    fi
    judge "$verdict" "$1" "${3:-}"
}

nothing_else() { # a folder, how many files were recorded in it, and, if it is a result, what its author requires
    surplus=$(find "$analysis/$1" -type f -exec sh -c 'for file; do echo x; done' sh {} + | wc -l)
    [ "$((surplus))" -le "$2" ] || judge extra "$1 ($((surplus)) files instead of $2)" "${3:-}"
}

judge() { # verdict, file, requirement of a result
    if [ -n "$3" ]; then
        results=$((results + 1))
        [ "$1" != identical ] || agreeing=$((agreeing + 1))
        printf '%-10s %s   (required: %s)\n' "$1" "$2" "$3" >>"$work/engine/results"
    else
        others=$((others + 1))
        [ "$1" = identical ] || printf '%-10s %s\n' "$1" "$2" >>"$work/engine/others"
    fi
}

report() {
    echo
    plain <"$work/engine/results"
    echo
    deviating=$(($(wc -l <"$work/engine/others")))
    if [ "$others" -gt 0 ]; then
        echo "Intermediate products: $((others - deviating)) of $others identical."
        plain <"$work/engine/others"
    fi
    if [ "$agreeing" -eq "$results" ]; then
        echo "All $results results are identical to the recorded ones."
        return 0
    fi
    echo "$agreeing of $results results are identical to the recorded ones, byte for byte."
    echo "Others may still agree in their numbers, which this script does not judge."
    return 1
}

# ---------------------------------------------------------------- all of it

main() {
    read_arguments "$@"
    find_archive
    make_work
    unpack
    check_digests
    lay_out_inputs
    [ -z "$networked" ] || [ "$allow_network" = yes ] ||
        stop 2 "these steps declared that they use the network, so add --allow-network: $networked"
    choose_engine
    images
    results=0 agreeing=0 others=0
    : >"$work/engine/results"
    : >"$work/engine/others"
    steps
    [ -z "$keep" ] || say "products are in $analysis, logs in $work/logs"
    report
}
