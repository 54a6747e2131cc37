#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What packagers are told is what `make install` does, and all say the same version.
# shellcheck source-path=SCRIPTDIR source=common.sh disable=SC2317
. "$(dirname "$0")/common.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/vdifs-packaging.XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

# The files of the spec without their documentation, which rpm takes from the sources.
spec_files() {
	sed -n '/^%files/,/^%changelog/s/^%{_\([a-z]*\)}/\1/p' packaging/vdifs.spec |
		sed 's|^bindir|/usr/bin|; s|^mandir|/usr/share/man|; s|^datadir|/usr/share|; s|\*$||' | sort
}

# With the variables of the make that runs this, it would want to be a part of it.
installed_files() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s -C "$builddir" install prefix=/usr DESTDIR="$work/root" >"$work/log" 2>&1 ||
		tail -n 20 "$work/log"
	(cd "$work/root" && find . ! -type d) | sed 's|^\.||; s|\.gz$||' | sort
}

files() {
	spec_files >"$work/spec"
	installed_files >"$work/installed"
	diff "$work/spec" "$work/installed"
}

missing_documents() {
	sed -n 's/^%\(license\|doc\) //p' packaging/vdifs.spec | tr ' ' '\n' | while read -r file; do
		[ -f "$file" ] || echo "%files: no $file"
	done
	cat debian/*.docs debian/*.examples | while read -r file; do
		[ -f "$file" ] || echo "debian: no $file"
	done
}

# Each program with what belongs to it, all of it in one package and no file in two. The schema is of both.
debian_files() {
	sed 's|^|/|; s|/vendor-completions/|/site-functions/|' debian/*.install | sort >"$work/debian"
	diff "$work/debian" "$work/installed"
	for program in vdifs vdimap; do
		grep -vE "^usr/share/vdifs/|[/_]$program(\.|-[a-z.-]*|\$|\$)" "debian/$program.install"
	done
}

versions() {
	version=$(sed -n 's/^AC_INIT(\[vdifs\], \[\(.*\)\])$/\1/p' configure.ac)
	{
		sed -n 's/^Version: *\(.*\)$/packaging\/vdifs.spec: \1/p' packaging/vdifs.spec
		sed -n '/^%changelog/,$s/^\* .* - \(.*\)-[0-9]*$/packaging\/vdifs.spec, %changelog: \1/p' packaging/vdifs.spec | head -n 1
		sed -n '1s/^vdifs (\([^-)]*\).*/debian\/changelog: \1/p' debian/changelog
		sed -n '1s/^vdifs \([^ ]*\) (.*)$/NEWS: \1/p' NEWS
	} >"$work/versions"
	grep -v ": $version\$" "$work/versions"
	[ "$(wc -l <"$work/versions")" -eq 4 ] || echo "not found everywhere: $(cat "$work/versions")"
}

# A report must not go to an address that the packages no longer name.
contact() {
	address=$(sed -n 's/^Maintainer: .*<\(.*\)>$/\1/p' debian/control)
	[ -n "$address" ] && grep -qF "Write to $address" SECURITY || echo "SECURITY does not name <$address>"
}

claim "SECURITY names the maintainers' address" contact
claim "the files of the RPM package are those of make install" files
claim "the files of the Debian packages are those of make install" debian_files
claim "the documents of the packages exist" missing_documents
claim "the RPM package, the Debian package and NEWS have the version of configure.ac" versions
plan
