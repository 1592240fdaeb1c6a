# Sourced by the scripts beside it: makes this checkout's virtual environment when it is first needed.
#
# `set_up run` gives what the command line needs, `set_up test` what the tests need on top of it. What was installed is
# written to a stamp; as long as the stamp holds the place and the pyproject.toml of now, a call costs a few file reads.

# The stamp is the place and the whole of pyproject.toml rather than a hash of them: no process to start, any machine has it.
stamp_text() {
    printf '%s\n%s\n' "$root" "$(<"$root/pyproject.toml")"
}

is_set_up() {
    local stamp=$root/.venv/weightgen-$1.stamp
    [ -x "$root/.venv/bin/weightgen" ] && [ -f "$stamp" ] && [ "$(<"$stamp")" = "$(stamp_text)" ]
}

# glibc gives large blocks back to the system as soon as they are free, and the next step pays for fetching them again:
# keeping them makes training on a processor two to four times as fast.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4000000000}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-16000000000}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-268435456}

set_up() {
    if is_set_up "$1"; then
        return
    fi
    exec 9>"$root/.venv.lock"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "waiting for another call that sets up .venv"
        flock 9
    fi
    if ! is_set_up "$1"; then
        install "$1"
    fi
    exec 9>&-
}

install() {
    local kind=$1 packages=. python pulse=
    say "setting up .venv, one time, a few minutes (torch and its libraries are some gigabytes)"
    trap 'stop_pulse' EXIT
    # While this file stands, the environment is half made and is made anew by the next call.
    if [ -e "$root/.venv.partial" ] || ! usable "$root/.venv/bin/python" || moved; then
        python=$(find_python) || exit 1
        : >"$root/.venv.partial"
        step "making it with $python" "$python" -m venv --clear "$root/.venv"
    fi
    rm -f "$root"/.venv/weightgen-*.stamp
    # In one command, so that pip chooses a torch that has a torchvision.
    step "installing torch and torchvision" pip_install "torch>=2.11" torchvision
    if [ "$kind" = test ]; then
        packages=".[test]"
    fi
    step "installing weightgen" pip_install --editable "$packages"
    stamp_text >"$root/.venv/weightgen-run.stamp"
    if [ "$kind" = test ]; then
        stamp_text >"$root/.venv/weightgen-test.stamp"
    fi
    rm -f "$root/.venv.partial"
    say "ready after $SECONDS s"
}

pip_install() {
    (cd "$root" && "$root/.venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@")
}

# The first Python that runs and can make environments; a name on the PATH is no proof, it may be an empty shim.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if usable "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "error: no Python of 3.11 or later with venv; install one, or name it: PYTHON=/path/to/python3 $0"
    return 1
}

usable() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Whether the environment was made by us at another place; its scripts would still point there.
moved() {
    local stamp=$root/.venv/weightgen-run.stamp first=
    [ -f "$stamp" ] && read -r first <"$stamp" && [ "$first" != "$root" ]
}

# step TEXT COMMAND…: runs the command with its output in a log, and says every ten seconds that it is still at work.
step() {
    local text=$1 log=$root/.venv.log
    shift
    say "  $text ($SECONDS s)"
    start_pulse "$text"
    if ! "$@" >"$log" 2>&1; then
        stop_pulse
        tail -n 15 "$log" >&2
        say "error: setting up .venv failed while $text; the end of $log stands above; call again to try again"
        exit 1
    fi
    stop_pulse
}

start_pulse() {
    local parent=$$
    # Its sleep holds none of our files, else a reader of stderr would wait for it after we are done.
    (
        while sleep 10 </dev/null >/dev/null 2>&1 9>&- && kill -0 "$parent" 2>/dev/null; do
            say "  … still $1 ($SECONDS s)"
        done
    ) </dev/null >/dev/null 9>&- &
    pulse=$!
}

stop_pulse() {
    if [ -n "${pulse:-}" ]; then
        kill "$pulse" 2>/dev/null || true
        wait "$pulse" 2>/dev/null || true
        pulse=
    fi
}

say() {
    printf '%s\n' "$*" >&2
}
