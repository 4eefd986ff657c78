#!/bin/sh
# Rewrites hack/layout.ld: which functions the linker puts next to each other, because starting a container executes
# them. Builds naru with its symbols, steps through the commands (benches/steps.c, x86-64) and writes down what they
# touched, in the order of the first touch: what a run still does when its program has started, what the init stage does, what
# only the runtime does. Needs root, a C compiler and binutils.
#
#   hack/layout.sh [--again]
#
# --again writes the list from what was stepped through last time.
# To be run again when the path of a start has changed a lot; a function that is not listed costs a page fault, a
# listed one that is gone costs nothing. The names' hashes are wild cards, so they hold for other compilers too.
set -eu
. "$(dirname "$0")/bench-setup.sh"

if [ "${1-}" != --inside ]; then
    again=${1-}
    [ "$(id -u)" = 0 ] || die 'needs root'
    build_tools
    [ "$tools/steps" -nt "$repo/benches/steps.c" ] || ${CC:-cc} -O2 -o "$tools/steps" "$repo/benches/steps.c"
    target=$repo/target/layout
    if [ "$again" != --again ]; then
        [ -e "$repo/hack/layout.ld" ] || die 'hack/layout.ld is missing: take the committed one'
        (cd "$repo" && cargo build --release --config profile.release.strip=false --target-dir "$target")
        naru=$target/$(uname -m)-unknown-linux-musl/release/naru
        nm -n "$naru" >"$tools/symbols"
        : >"$tools/steps.out"
        for view in v2 v1; do
            NARU=$naru "$repo/hack/cgroup-view.sh" $view "$0" --inside $view || say "cgroup $view: left out"
        done
    fi
    [ -s "$tools/steps.out" ] || die 'nothing was stepped through'
    {
        echo '/* Written by hack/layout.sh: the functions that a container start executes, next to each other. */'
        echo 'SECTIONS {'
        for role in wait init parent; do
            echo "  .text.naru.$role : {"
            echo "    naru_${role}_start = .;"
            # Assembly of the C library and its first instructions, which have no sections of their own.
            if [ $role = init ]; then printf '    *.lo(.text)\n    *crt1.o(.text)\n'; fi
            # These wait: step by step the program has ended before. First, in what `unmap_start` keeps.
            if [ $role = wait ]; then
                for name in 4poll4poll 7Signals4next; do echo "    *(.text._R*$name*)"; done
                echo '    *(.text.main .text.poll .text.read)'
            fi
            # The first command is a run of the default spec: what comes with the second is not for every start.
            awk '$2 == "_start" && ++starts == 2 { print "more" } !seen[$0]++' "$tools/steps.out" | awk -v role=$role '
                # v0 names hold a hash after each "Cs", places that depend on the length of hashes after each "B", and the
                # crate that made the instance at the end.
                function pattern(name) {
                    sub(/\.llvm\.[0-9]+$/, "*", name)
                    gsub(/Cs[0-9A-Za-z]+_/, "Cs*_", name)
                    gsub(/B[0-9A-Za-z]*_/, "B*_", name)
                    sub(/Cs\*_[0-9]+[a-z_]+$/, "Cs*", name)
                    sub(/17h[0-9a-f]+E$/, "17h*E", name)
                    return name
                }
                $1 == "more" && role == "parent" { print "    naru_run_end = .;" }
                $1 == "init" { init[$2] = 1 }
                { if ($1 == role && (role != "parent" || !($2 in init))) { name = pattern($2); print "    *(.text." name " .text.unlikely." name ")" } }' | awk '!seen[$0]++'
            # Of functions with the same code the compiler keeps one, under the name of any of them.
            if [ $role = parent ]; then
                for name in 7raw_vec 5slice5index 5slice6concat 5sliceSR 5Write9write_str 9PartialEq2eq; do echo "    *(.text._R*$name*)"; done
            fi
            echo "    naru_${role}_end = .;"
            echo '  }'
        done
        # A panic ends the program where it is, so nobody reads the tables for unwinding: a fifteenth of the file.
        echo '  /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame) *(.gcc_except_table .gcc_except_table.*) }'
        echo '} INSERT BEFORE .text;'
        # Behind the variables, so that these lie in one or two pages and what a start writes is one piece.
        echo 'SECTIONS { .naru.bss : { *(.llvm.linkonce.b.naru.stack) *(.llvm.linkonce.b.naru.allocator) *(.llvm.linkonce.b.naru.born) } } INSERT AFTER .bss;'
    } >"$tools/layout.ld"
    cp "$tools/layout.ld" "$repo/hack/layout.ld"
    say "written: hack/layout.ld ($(grep -c 'text\.' "$repo/hack/layout.ld") functions); build again to use it"
    exit 0
fi

view=$2 tag=nl$$
naru=$(runtime_path naru)
dir=$(mktemp -d)
trap 'clear_up "$dir/state" "$tag"; umount -l "$dir"; rmdir "$dir"' EXIT
mount -t tmpfs -o mode=755 layout "$dir"
make_bundles "$dir" "$view" "$tag"
mkdir -p "$dir/state/naru"
parent_cgroups "$view" "$tag"
step() { "$tools/steps" "$tools/symbols" "$tools/steps.out" "$naru" --root "$dir/state/naru" "$@" </dev/null >/dev/null || say "$view $1: exit status $?"; }
for config in spec docker; do
    step run -b "$dir/$config" "$config-$tag"
    step create -b "$dir/$config-sleep" "$config-sleep-$tag"
    step start "$config-sleep-$tag"
    step state "$config-sleep-$tag"
    step exec "$config-sleep-$tag" /bin/true
    step kill "$config-sleep-$tag" KILL
    sleep 0.1
    step delete "$config-sleep-$tag"
done
