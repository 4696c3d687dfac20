#!/bin/sh
# Says which lines are longer than a page is wide. Exit status 3 means: found some.
set -eu
widest=76
found=0
for file in "$1"/*.txt; do
    number=0
    while IFS= read -r line; do
        number=$((number + 1))
        if [ "${#line}" -gt "$widest" ]; then
            printf '%s:%d: %d characters, %d are the most\n' "$file" "$number" "${#line}" "$widest"
            found=$((found + 1))
        fi
    done <"$file"
done
if [ "$found" -gt 0 ]; then
    echo "$found long lines" >&2
    exit 3
fi
echo "no long lines"
