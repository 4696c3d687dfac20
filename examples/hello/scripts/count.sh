#!/bin/sh
# Counts the words of each file in a directory, one line at a time, as a longer job would report.
set -eu
total=0
for file in "$1"/*.txt; do
    words=$(wc -w <"$file")
    total=$((total + words))
    printf '%6d words  %s\n' "$words" "$file"
    sleep 0.3
done
printf '%6d words  in all\n' "$total"
