#!/bin/bash
# install-test.sh: is the tree that `make install` and `make deb` make right? Works in a directory of its own; closes with
# `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() { # TITLE CMD..: CMD must succeed
    local title=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $title"
    else
        failed=$((failed + 1))
        echo "FAIL $title: $(head -n 5 <<<"$output")"
    fi
}

skip() { # TITLE REASON
    skipped=$((skipped + 1))
    echo "SKIP $1: $2"
}

all_commands() { # the commands that naru itself lists
    "$naru" --help | sed -n '/^COMMANDS:/,/^$/s/^  *\([a-z]*\)  .*/\1/p'
}

every_command() { # CMD..: holds for each command, whose name is added
    local command count=0
    for command in $(all_commands); do
        "$@" "$command" || { echo "not for $command"; return 1; }
        count=$((count + 1))
    done
    [ $count -ge 15 ] || { echo "only $count commands"; return 1; }
}

has_page() { [ -s "$share/man/man8/naru-$1.8" ] && grep -q "naru.-$1(8)\|naru\\\\-$1" "$share/man/man8/naru.8"; }
page_has_flags() { # every flag of the command's help is in its page
    local flag
    for flag in $("$naru" "$1" --help | grep -oE -- '^ *(-[a-z], )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+'); do
        grep -qF -- "${flag//-/\\-}" "$share/man/man8/naru-$1.8" || { echo "no $flag in naru-$1.8"; return 1; }
    done
}
page_renders() {
    local warnings
    warnings=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$share/man/man8/naru-$1.8" 2>&1 >/dev/null)
    [ -z "$warnings" ] || { echo "$warnings"; return 1; }
}
in_completions() { grep -q "\b$1\b" "$bash_file" && grep -q "\b$1\b" "$zsh_file" && grep -q "\b$1\b" "$fish_file"; }
mode_is() { [ "$(stat -c %a "$2")" = "$1" ] || { stat -c '%a %n' "$2"; return 1; }; }
bash_completes() { # the words that bash offers after `naru check`
    # shellcheck disable=SC2016 # the inner shell expands
    bash -c '. "$1"; COMP_WORDS=(naru check); COMP_CWORD=1; _naru naru check naru; [ "${COMPREPLY[*]}" = checkpoint ]' - "$bash_file"
}

if ! make -s install "DESTDIR=$work/tree" PREFIX=/usr >"$work/log" 2>&1; then
    echo "FAIL make install: $(tail -n 5 "$work/log")"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
naru=$work/tree/usr/bin/naru share=$work/tree/usr/share
bash_file=$share/bash-completion/completions/naru zsh_file=$share/zsh/site-functions/_naru
fish_file=$share/fish/vendor_completions.d/naru.fish
check "the binary runs" grep -q '^naru version ' <("$naru" --version)
check "the binary may be executed by everybody" mode_is 755 "$naru"
check "pages are readable by everybody" mode_is 644 "$share/man/man8/naru.8"
check "a page for every command, named by the first" every_command has_page
check "every flag is in its command's page" every_command page_has_flags
check "no page for what is no command" test "$(find "$share/man" -type f | wc -l)" = "$(($(all_commands | wc -l) + 1))"
check "every command is in all completions" every_command in_completions
check "bash takes its completions" bash -n "$bash_file"
check "bash completes a command" bash_completes
if command -v man >/dev/null && command -v groff >/dev/null; then
    check "man renders every page without a warning" every_command page_renders
else
    skip "man renders every page without a warning" "no man or no groff"
fi
for shell in zsh fish; do
    file=${shell}_file
    if command -v $shell >/dev/null; then
        check "$shell takes its completions" $shell -n "${!file}"
    else
        skip "$shell takes its completions" "no $shell"
    fi
done
ln -s "$naru" "$work/runc"
check "called runc it says so" grep -q '^runc version ' <("$work/runc" --version)
check "nothing else is installed" test "$(find "$work/tree" -type f | wc -l)" = "$(($(all_commands | wc -l) + 5))"

if cargo deb --version >/dev/null 2>&1 && command -v dpkg-deb >/dev/null; then
    check "make deb" make -s deb
    package=$(find target/debian -name 'naru_*.deb' | head -n 1)
    check "the package holds the same files" diff <(dpkg-deb -c "$package" | grep -v '/$' | grep -oE '(bin/naru|naru(-[a-z]*)?\.8)' | sort) \
        <(find "$work/tree" -type f | grep -oE '(bin/naru|naru(-[a-z]*)?\.8)$' | sort)
    check "the package depends on nothing" test -z "$(dpkg-deb -f "$package" Depends)"
    check "the package unpacks to a program that runs" sh -c \
        "dpkg-deb -x '$package' '$work/unpacked' && '$work/unpacked/usr/bin/naru' --version"
else
    skip "the Debian package" "no cargo-deb or no dpkg-deb"
fi

check "uninstall" make -s uninstall "DESTDIR=$work/tree" PREFIX=/usr
check "uninstall leaves no file" test -z "$(find "$work/tree" -type f)"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
