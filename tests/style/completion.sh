#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion offers what --help lists, and only words that the program takes.
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

for program in vdifs vdimap; do
	[ -x "$builddir/$program" ] || { echo "1..0 # SKIP $program is not built"; exit 0; }
done
# shellcheck source=/dev/null
. completions/vdifs

complete_line() { # complete_line WORD...: what bash would offer for the last one
	local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
	_vdifs "$1"
	[ "${#COMPREPLY[@]}" -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"
}

listed() { # listed PROGRAM: the long options of --help, with = where there is a value
	"$builddir/$1" --help | grep -oE -- '--[a-z][a-z0-9-]+=?' | sort -u
}

in_bash() { # in_bash PROGRAM: the differences
	diff <(listed "$1") <(complete_line "$builddir/$1" --x=1 - | grep -e -- | sort -u)
	diff <("$builddir/$1" --help | grep -oE '^ +-[A-Za-z]' | tr -d ' ' | sort -u) \
		<(complete_line "$builddir/$1" - | grep -ve -- | sort -u)
}

in_zsh() {
	diff <(listed "$1" | tr -d = | sort -u) <(zsh -f -c '
		_call_program() { shift; "$@" }
		_arguments() { print -l -- $@ }
		words=($1) service=${1:t}
		. completions/_vdifs' - "$builddir/$1" | grep -oE -- '^(\*)?--[a-z0-9-]+' | tr -d '*' | sort -u)
}

# Each word that is offered as a value is one that the program takes: what it says then is another thing.
values() {
	local program=$1 option word said
	for option in $(listed "$program" | grep '=$'); do
		case ${option%=} in *-file) continue ;; esac
		for word in $(complete_line "$builddir/$program" "${option%=}" =); do
			said=$("$builddir/$program" "$option$word" /nothing /nowhere 2>&1)
			[[ $said == *"$option"* || $said == *"must be"* ]] && echo "$option$word: $said"
		done
	done
}

offers() { # offers WANTED WORD...
	local wanted=$1
	shift
	[ "$(complete_line "$@" | paste -s -d ' ' -)" = "$wanted" ] || complete_line "$@"
}

# The names are those of the image on the line, wherever it stands there.
names() {
	command -v qemu-img >/dev/null && command -v jq >/dev/null || return 0
	qemu-img create -q -f qcow2 "$scratch/a.qcow2" 1M && qemu-img snapshot -c monday "$scratch/a.qcow2" &&
		qemu-img snapshot -c 'two words' "$scratch/a.qcow2" && qemu-img bitmap --add "$scratch/a.qcow2" nightly
	offers 'monday two\ words' "$builddir/vdifs" "$scratch/a.qcow2" --snapshot = ""
	offers monday "$builddir/vdimap" "$scratch/a.qcow2" --snapshot m
	offers nightly "$builddir/vdimap" "$scratch/a.qcow2" --bitmap = n
	offers "" "$builddir/vdimap" none --snapshot = ""
	offers 'monday two\ words' "$builddir/vdifs" "$scratch/a.qcow2" -o snapshot = ""
}

# In the list of -o an equals sign is a word of its own, and a comma is not.
list_values() {
	local vdifs=$builddir/vdifs
	offers "qcow2 vhd vpc raw" "$vdifs" -o format =
	offers qcow2 "$vdifs" -o format = q
	offers "same-dir any none" "$vdifs" -o ro,format = raw,backing = ""
	offers "end" "$vdifs" a.qcow2 mnt -o allow_other,vhd-footer = e
	offers "raw,force-share" "$vdifs" -o format = raw,force
	offers README "$vdifs" -o data-file = READ
	offers README "$vdifs" -o backing-file = base.qcow2 = READ
	offers "" "$vdifs" -o fsname = x
	offers README "$vdifs" -o format = qcow2 a.qcow2 READ
	offers "" "$vdifs" -o format = qcow2 a.qcow2 b READ
}

# In the list of -o zsh has the values of the long options.
list_in_zsh() {
	local told
	told=$(zsh -f -c '
		_call_program() { shift; "$@" }
		_arguments() { [[ " $* " == *"*-o[mount options]:options:_vdifs_mount_words "* ]] || print "no -o" }
		_values() { print -l -- $@ }
		words=($1) service=vdifs
		. completions/_vdifs; _vdifs_mount_words' - "$builddir/vdifs")
	for word in 'format\[.*\]:format:(qcow2 vhd vpc raw)' 'backing\[.*\]:policy:(same-dir any none)' 'snapshot\[.*\]:snapshot:{.*}' \
		'\*backing-file\[.*\]:file:_files' '\*search\[.*\]:directory:_files -/' 'direct\[.*\]' 'allow_other'; do
		grep -qx -- "$word" <<<"$told" || echo "$word is missing: $told"
	done
}

# What the words of -o are, vdifs itself takes.
mount_words() {
	local word said
	for word in $(complete_line "$builddir/vdifs" -o ""); do
		said=$("$builddir/vdifs" -o "${word/=*/=1}" /nothing /nowhere 2>&1)
		[[ $said != *"unknown mount option"* ]] || echo "$word: $said"
	done
	offers "allow_other allow_root" "$builddir/vdifs" -o allow_
	offers "ro,backing= ro,backing-file= ro,backing-format=" "$builddir/vdifs" -o ro,backing
}

scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT

for program in vdifs vdimap; do
	claim "bash is offered the options of $program" in_bash "$program"
	claim "zsh is offered the options of $program" in_zsh "$program"
	claim "the values that are offered are taken by $program" values "$program"
done
claim "the words of --sandbox are known" offers "auto strict off" "$builddir/vdifs" --sandbox =
claim "and begun ones completed" offers strict "$builddir/vdifs" --sandbox = s
claim "an image is a file name" offers README "$builddir/vdimap" READ
claim "also behind the value of an option" offers README "$builddir/vdimap" --format qcow2 READ
claim "and behind another file" offers README "$builddir/vdifs" --backing-file base.qcow2 a.qcow2 READ
claim "a value is completed behind a blank" offers "qcow2 vhd vpc raw" "$builddir/vdifs" --format ""
claim "and behind an equals sign" offers qcow2 "$builddir/vdifs" --format = q
claim "the words of -o are mount options" mount_words
claim "and their values those of the long options" list_values
if command -v zsh >/dev/null; then claim "also for zsh" list_in_zsh; else skip "also for zsh" "no zsh"; fi
claim "names of snapshots and bitmaps are those of the image" names
claim "behind two dashes options are names" offers "" "$builddir/vdimap" -- -d
claim "and with image and mountpoint before them a command" offers "sha256sum" "$builddir/vdifs" a b -- sha256su
claim "after image and mountpoint there is nothing to say" offers "" "$builddir/vdifs" --direct a b ""
plan
