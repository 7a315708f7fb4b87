# Sourced by the scripts here: checks of variables, and commands that are run or, where dry_run is
# true, printed.
# shellcheck shell=bash

# macOS comes with 3.2, which lacks ${word@Q} and takes empty arrays for unset variables.
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash $BASH_VERSION is too old; install 4.4 or later and have it first in PATH" >&2
  exit 2
fi

# need NAME PATTERN WORDS: the variable of that name must hold what the words say.
need() {
  [[ ${!1} =~ ^($2)$ ]] && return
  echo "error: $1='${!1}' is not $3" >&2
  exit 2
}

need_numbers() { # NAMES of variables
  local name
  for name in "$@"; do
    need "$name" '[0-9]+' 'a number'
  done
}

need_counts() { # NAMES of variables
  local name
  for name in "$@"; do
    need "$name" '[1-9][0-9]*' 'a number above 0'
  done
}

need_name() { # NAME of a variable that names a resource of the cloud
  need "$1" '[a-z]([a-z0-9-]*[a-z0-9])?' 'lower-case letters, digits and hyphens, a letter first'
}

execute() {
  # shellcheck disable=SC2154 # the script's own variable
  if $dry_run; then
    show "$@"
  else
    "$@"
  fi
}

# Prints a command as a shell would read it.
show() {
  local word line=()
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@,+-]+$ ]]; then
      line+=("$word")
    else
      line+=("${word@Q}")
    fi
  done
  echo "${line[*]}"
}
