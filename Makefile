# naru. The two commands to begin with: `make demo` and `make test`.

TARGET := $(shell uname -m)-unknown-linux-musl
NARU := target/$(TARGET)/release/naru
# Where `make install` puts things: a prefix below DESTDIR.
PREFIX ?= /usr/local
# Man pages and completions as they lie below PREFIX/share.
PAGES := target/pages
# The commit that `naru --version` prints, where this is a checkout.
export NARU_COMMIT := $(or $(NARU_COMMIT),$(shell git describe --always --dirty --abbrev=40 2>/dev/null))

.PHONY: all naru demo test security fuzz corpora load sweep absent engines bench budget lab pages install uninstall deb sbom deny reproducible clean

all: naru

naru:
	hack/build.sh

# Runs a container from a bundle that it makes itself and shows from inside what is isolated.
demo: naru
	hack/demo.sh $(NARU)

# Installs what the tests need (as root, from Debian's packages) and runs all of them.
test:
	hack/test.sh

# The security corpus as published in docs/security.md: 2,000 attempts a race, on cgroup v1 and v2 (as root).
security: naru
	cd runtime-tools-tests/security && cargo build --release --target $(TARGET)
	for view in v1 v2; do RUNTIME=$(CURDIR)/$(NARU) runtime-tools-tests/security/target/$(TARGET)/release/security --view $$view || exit 1; done

# Load for the record: ten minutes of 64 commands at once on one id and on many, and 2,000 containers alive (as root).
load: naru
	cd runtime-tools-tests && cargo build --release --target $(TARGET)
	for view in v1 v2; do LOAD_SECONDS=600 LOAD_CONTAINERS=2000 RUNTIME=$(CURDIR)/$(NARU) \
		runtime-tools-tests/target/$(TARGET)/release/suite --view $$view load/ exhausted/ frozen/ || exit 1; done

# The whole fault sweep: every call of every command with every errno it can return, and SIGKILL at each (as root).
sweep: naru
	cd runtime-tools-tests/sweep && cargo build --release --target $(TARGET)
	for kind in "" --kill; do runtime-tools-tests/sweep/target/$(TARGET)/release/sweep $(CURDIR)/$(NARU) \
		--command all --view v1,v2 $$kind || exit 1; done

# The whole suite with one system call missing at a time, as docs/security.md has it (as root, an hour).
absent: naru
	cd runtime-tools-tests && cargo build --release --target $(TARGET)
	cd runtime-tools-tests/security && cargo build --release --target $(TARGET)
	for view in v1 v2; do runtime-tools-tests/security/absent.sh $(CURDIR)/$(NARU) $$view || exit 1; done

# The fuzz targets, each for TIME seconds, two at a time (as in docs/security.md); needs g++. TARGETS="config plan" chooses.
TIME ?= 60
fuzz:
	TIME=$(TIME) hack/fuzz.sh $(TARGETS)
# The corpora of the same targets, with seeded changes, without libFuzzer; the crates are those of the unit tests.
corpora:
	CARGO_TARGET_DIR=$(CURDIR)/target cargo test --locked --no-default-features --target $(TARGET) --manifest-path fuzz/Cargo.toml

# A Debian root with released engines and peers, for the checks below: LAB=DIR chooses where.
lab:
	hack/lab.sh

# Docker, containerd and Podman with naru as their runtime: needs the lab.
engines: naru
	RUNTIME=$(CURDIR)/$(NARU) runtime-tools-tests/engines.sh

# naru beside the kernel's own cost, crun, runc and youki; writes docs/bench.md and docs/bench.svg.
bench: naru
	hack/bench.sh

# System calls of each command and the size of the binary against docs/budget.txt.
budget: naru
	hack/syscall-budget.sh

# Man pages for every command and completions, from the definitions that naru reads command lines by.
pages:
	cargo run --quiet --locked --manifest-path packaging/Cargo.toml --target $(TARGET) -- $(PAGES)

# The binary, man pages, and completions for bash, zsh and fish.
install: naru pages
	install -D -m 0755 $(NARU) $(DESTDIR)$(PREFIX)/bin/naru
	cd $(PAGES) && find . -type f -exec install -D -m 0644 {} $(DESTDIR)$(PREFIX)/share/{} \;

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/naru $(DESTDIR)$(PREFIX)/share/man/man8/naru.8 $(DESTDIR)$(PREFIX)/share/man/man8/naru-*.8
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/naru $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_naru
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/naru.fish

# A Debian package with the same below /usr; needs `cargo install cargo-deb`.
deb: naru pages
	cargo deb --no-build --no-strip --target $(TARGET) --output target/debian/

# What naru is made of, as CycloneDX JSON.
sbom:
	hack/sbom.sh target/naru.cdx.json

# Licences, sources and advisories of all crates: needs `cargo install cargo-deny`.
deny:
	cargo deny check

# Two builds in two directories, one of them offline with vendored crates: the same bytes?
reproducible:
	hack/reproducible.sh

clean:
	cargo clean
