# Gets the tools that the scripts need and keeps them in a folder outside the tree. To be sourced.
# shellcheck shell=bash

# Servers such as nginx are installed where only root looks by itself.
PATH=$PATH:/usr/sbin
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/terse-tools

say() { printf '==> %s\n' "$*" >&2; }

die() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is not installed"
  done
}

# apt_install PACKAGE…: false where there is no apt or no right to use it.
apt_install() {
  local root=()
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  say "installing $* through apt"
  "${root[@]}" apt-get update -q >&2 || return 1
  # A run level of 1 keeps a package from starting its service.
  "${root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@" >&2
}

# python_tool NAME PACKAGE==VERSION…: makes a virtual environment with these once and prints its path.
# Other versions make another environment, so that an old cache is never mistaken for the new tool.
python_tool() {
  local name=$1 folder
  shift
  folder=$TOOLS/$name-$(printf '%s\n' "$@" | cksum | cut -d ' ' -f 1)
  if [ ! -e "$folder/complete" ]; then
    say "installing $name with pip into $folder"
    make_venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2 || die "pip cannot install $name"
    touch "$folder/complete"
  fi
  printf '%s\n' "$folder"
}

# cargo_tool NAME VERSION FLAG…: builds a program without its default features once and prints its path.
cargo_tool() {
  local name=$1 version=$2 folder=$TOOLS/$1-$2
  shift 2
  if [ ! -x "$folder/bin/$name" ]; then
    say "building $name $version with cargo into $folder, which takes minutes"
    # With the settings of this project it might not build, or go elsewhere.
    env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install --quiet --locked --no-default-features --root "$folder" \
      "$@" "$name@$version" >&2 || die "cargo cannot install $name"
  fi
  printf '%s\n' "$folder/bin/$name"
}

make_venv() {
  need python3
  python3 -m venv --clear "$1" >&2 && return
  # Debian keeps a part of venv in a package of its own.
  apt_install python3-venv || die "python3 cannot make a virtual environment (on Debian: apt install python3-venv)"
  python3 -m venv --clear "$1" >&2 || die "python3 cannot make a virtual environment in $1"
}
