# make          builds the four programs into bin/
# make demo     one container from nothing: builds, runs the embedded image, asks it, cleans up
# make test     everything, on a fresh Debian machine too (as root; installs the packages that tests use)
# make help     the other targets

VERSION ?= 0.1.0-dev
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DESTDIR ?=
PREFIX  ?= /usr/local
FUZZTIME ?= 5s
TIMEOUT ?= 15m

export CGO_ENABLED = 0

GO      ?= go
FLAGS    = -trimpath -buildvcs=false
STRIP    = -s -w
LDFLAGS  = $(STRIP) -X main.version=$(VERSION) -X main.commit=$(COMMIT)
PROGRAMS = dhow dhowd dhow-shim dhow-runtime
HELLO    = cmd/dhowd/hello/rootfs/hello
TOOLS    = .cache/tools

.DEFAULT_GOAL = build
.PHONY: build hello demo test test-short test-vm needs vet arm64 bench fuzz install uninstall clean help

build: hello ## build dhow, dhowd, dhow-shim and dhow-runtime into bin/
	@mkdir -p bin
	$(GO) build $(FLAGS) -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

hello: # the server of the image that dhowd embeds; the linker leaves it alone when it is up to date
	@$(GO) build $(FLAGS) -ldflags '$(STRIP)' -o $(HELLO) ./cmd/hello

demo: build ## run the embedded image, ask it over a published port, explain it, clean up (as root)
	@$(GO) build $(FLAGS) -o .cache/leave ./hack/leave
	@hack/demo bin .cache/leave

test: needs hello ## go vet and all tests; installs what they need (as root)
	@hack/test $(TIMEOUT)

test-short: hello ## tests that take long are left out; nothing is installed
	@hack/test $(TIMEOUT) -short

test-vm: hello ## the runtime's and the engine's tests in a machine with Linux 6.1, cgroup v2 and systemd (as root; qemu)
	@hack/needs vm
	@hack/vm test $(ARGS)

needs: ## install the Debian packages that tests use, those that are missing
	@hack/needs
	@command -v dockerd >/dev/null || hack/peers

vet: arm64 ## go vet, staticcheck, govulncheck and the build for arm64
	$(GO) vet ./...
	@mkdir -p $(TOOLS)
	cd hack/tools && $(GO) build -o ../../$(TOOLS)/ tool
	$(TOOLS)/staticcheck ./...
	@hack/vulncheck $(TOOLS)/govulncheck

arm64: ## check that everything builds for arm64
	GOARCH=arm64 $(GO) build ./...

bench: build ## measure against the peers that are here; ARGS='-only runtime -n 50 -json' (as root)
	@hack/peers
	$(GO) build $(FLAGS) -o .cache/dhow-bench ./cmd/dhow-bench
	.cache/dhow-bench -bin bin -cache .cache/peers $(ARGS)

fuzz: ## run each fuzz target for FUZZTIME
	@hack/fuzz $(FUZZTIME)

install: build ## install the programs below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(PROGRAMS:%=bin/%) $(DESTDIR)$(PREFIX)/bin

uninstall:
	rm -f $(PROGRAMS:%=$(DESTDIR)$(PREFIX)/bin/%)

clean: ## remove what was built
	rm -rf bin $(TOOLS) .cache/dhow-bench $(HELLO)

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
