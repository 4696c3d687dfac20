#!/bin/sh
# Prints the words that a directory's files use most.
set -eu
cat "$1"/*.txt | tr -cs '[:alpha:]' '\n' | tr '[:upper:]' '[:lower:]' | sort | uniq -c | sort -k1,1nr -k2 | head -n "$2"
