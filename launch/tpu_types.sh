# shellcheck shell=bash
# What a --type of Cloud TPU means: v4-128, v5e-256 (or v5litepod-256), v5p-128, v6e-256. Functions of $type, $slices and
# $version, sourced by gcp_tpu.sh.
# shellcheck disable=SC2154

generation() { # v5litepod-16 and v5e-16 -> v5e
    local first=${type%%-*}
    echo "${first/v5litepod/v5e}"
}

check_type() {
    [[ -n $type ]] || die "--type is not given: v4-128, v5e-256, v5p-128, v6e-256, ..."
    [[ $type =~ ^(v4|v5e|v5litepod|v5p|v6e)-([0-9]+)$ ]] || die "--type=$type: write v4-N, v5e-N, v5p-N or v6e-N"
}

chips() { # of all slices; the names of v4 and v5p count TensorCores, two a chip
    local size=${type##*-}
    case $(generation) in v4 | v5p) size=$((size / 2)) ;; esac
    echo $((size * slices))
}

runtime_version() {
    if [[ -n $version ]]; then
        echo "$version"
        return
    fi
    case $(generation) in
        v4) echo tpu-ubuntu2204-base ;;
        v5e) echo v2-alpha-tpuv5-lite ;;
        v5p) echo v2-alpha-tpuv5 ;;
        v6e) echo v2-alpha-tpuv6e ;;
    esac
}
