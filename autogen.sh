#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Make configure and the Makefile.in files from a checkout.
set -e
cd "$(dirname "$0")"
exec autoreconf --install --force
