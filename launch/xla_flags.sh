#!/usr/bin/env bash
# Print a bundle of launch/xla_flags.txt as shell assignments: launch/xla_flags.sh CHIP [SLICES]
#
#   eval "$(launch/xla_flags.sh v5p 2)"       for two slices of v5p
#   eval "$(launch/xla_flags.sh h100)"
#
# What the caller's environment already holds comes after the bundle, so that it wins.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
chip=${1:?usage: xla_flags.sh CHIP [SLICES]}
slices=${2:-1}

case $chip in
    v[0-9]*) kinds="tpu $chip" ;;
    a100* | h100 | h200 | b200) kinds="gpu $chip" ;;
    *)
        echo "xla_flags.sh: unknown chip '$chip'; TPUs are v4, v5e, v5p, v6e, GPUs a100, h100, h200, b200" >&2
        exit 2
        ;;
esac
if [[ $slices -gt 1 ]]; then kinds+=" multislice"; fi

variables=$(awk '$1 !~ /^#/ && NF { print $2 }' "$root/launch/xla_flags.txt" | sort -u)
for variable in $variables; do
    bundle=$(awk -v kinds=" $kinds " -v variable="$variable" '
        $2 == variable && index(kinds, " " $1 " ") { printf "%s%s", separator, $3; separator = " " }
    ' "$root/launch/xla_flags.txt")
    if [[ -z $bundle ]]; then continue; fi
    own=${!variable:-}
    if [[ $bundle == --* ]]; then
        printf 'export %s=%q\n' "$variable" "$bundle${own:+ $own}"
    else
        printf 'export %s=%q\n' "$variable" "${own:-$bundle}"
    fi
done
