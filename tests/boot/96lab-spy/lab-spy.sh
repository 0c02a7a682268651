#!/bin/bash
# Writes down, once each, all words that ever stand in the command line or the environment of a process, until the
# initrd ends. Starts no program itself: it would be too slow to see the others.
mkdir -p /run/lab-spy
declare -A seen
exec 9<> <(:)
while :; do
    for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do
        while IFS= read -r -d '' word; do
            [[ -z $word || ${seen[$word]} ]] && continue
            seen[$word]=1
            printf '%s\n' "$word" >> /run/lab-spy/words
        done < "$file"
    done 2> /dev/null
    read -r -t 0.05 -u 9
done
