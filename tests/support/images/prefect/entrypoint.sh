#!/usr/bin/env bash
# What the official image's entry point does: install what EXTRA_PIP_PACKAGES names, then become the command.
set -e

if [ -n "${EXTRA_PIP_PACKAGES:-}" ]; then
    echo "+uv pip install ${EXTRA_PIP_PACKAGES}"
    # The variable is a list of requirements, so it is split on purpose.
    # shellcheck disable=SC2086
    uv pip install --system ${EXTRA_PIP_PACKAGES}
fi

if [ "$#" -eq 0 ]; then
    exec bash --login
fi
exec "$@"
