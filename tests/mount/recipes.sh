#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The recipes of tests/images once more, through the mount: a refused image leaves nothing mounted,
# a damaged range is EIO for the one who reads it and no one else.
exec python3 "${srcdir:-$(dirname "$0")/../..}/tests/recipes.py" --mount
