# naru. The two commands to begin with: `make demo` and `make test`.

TARGET := $(shell uname -m)-unknown-linux-musl
NARU := target/$(TARGET)/release/naru
# The commit that `naru --version` prints, where this is a checkout.
export NARU_COMMIT := $(shell git describe --always --dirty --abbrev=40 2>/dev/null)

.PHONY: all naru demo test security engines bench budget lab install clean

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

install: naru
	install -D -m 0755 $(NARU) $(DESTDIR)/usr/local/bin/naru

clean:
	cargo clean
