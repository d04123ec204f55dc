# Every target works in a clean clone with make, gcc, libc6-dev, git and Go; `make deps`
# installs the Debian packages that tests and demonstrations use besides, and fetches the test
# vectors. After it, nothing here needs a network.

GO    ?= go
BIN   := bin
DEBS  := softhsm2 openssl curl strace jq
TOOLS := softhsm2-util openssl curl strace jq
VECTORS := $(shell cat hsm/hsmtest/wycheproof/module.txt)
LINT  := $(GO) tool -modfile=ci/tools/go.mod

# Where goroutines share memory. The race detector finds nothing in pure packages, and
# compiling everything twice would cost more than the tests.
RACE := ./hsm/... ./keyops ./keyops/audit ./keyops/seal ./keyops/store/... ./replication/... ./gateway/...

.DEFAULT_GOAL := help
.PHONY: help deps build test race simulate mutations lint generate generate-check tidy-check demo demo-boundary chaos bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

deps: ## install what tests need: softhsm2, openssl, curl, strace, jq, the test vectors of Wycheproof
	@cd / && $(GO) mod download $(VECTORS)
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=1; done; \
	if [ -z "$$missing" ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -qy --no-install-recommends $(DEBS); \
	elif sudo -n true 2>/dev/null; then sudo -n apt-get update -q && sudo -n apt-get install -qy --no-install-recommends $(DEBS); \
	else echo "Type this, then make again:"; echo "  sudo apt-get install $(DEBS)"; exit 1; fi

build: ## build the four programs into bin/
	$(GO) build -o $(BIN)/ ./cmd/keyferryd ./cmd/keyferry-ceremony ./cmd/keyferry-dev
	CGO_ENABLED=0 $(GO) build -o $(BIN)/ ./cmd/keyferry

# A test that chance can fail tells a contributor nothing about their change, so property tests
# draw the same cases in every run; make simulate, make chaos and RAPID_SEED=0 look for new ones.
test: export RAPID_SEED ?= 1
test: deps ## vet, then every test on real SoftHSM tokens; fails if none touched a token
	$(GO) vet ./...
	$(GO) run ./ci/testsummary -timeout 20m ./...

race: deps ## the packages in which goroutines share memory, under the race detector
	$(GO) run ./ci/testsummary -race -timeout 20m $(RACE)

simulate: ## SCHEDULES=100000 schedules of three to five Regions under every fault; hours. Of 100, PAIRED=30 have a severed pair, AGAIN=30 new instances, HOSTILE=0 a Region in a thief's hands
	GOGC=400 $(GO) test -timeout 24h -count 1 -v -run 'TestSimulation$$' ./replication/simulation -schedules $(or $(SCHEDULES),100000) -seed $(or $(SEED),1) -at-most $(or $(TIME),0) -paired $(or $(PAIRED),30) -again $(or $(AGAIN),30) -hostile $(or $(HOSTILE),0)

mutations: ## switch each guard of the replication rules off in turn, and demand that tests notice
	$(GO) test -timeout 2h -count 1 -tags mutation -run 'TestMutations$$' ./keyops/guard

lint: ## formatting, vet, staticcheck, the repository's own rules, generated code
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.\(gw\.\)\?go$$')); \
	if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(LINT) staticcheck ./...
	$(GO) test ./ci
	ci/check-generated.sh

generate: ## regenerate Go code and OpenAPI from proto/
	ci/generate.sh

generate-check: ## demand that generated code is what proto/ says
	ci/check-generated.sh

tidy-check: ## demand a tidy go.mod (needs the network; lint has an offline approximation)
	$(GO) mod tidy -diff

demo: deps build ## three Regions, one multi-Region key, from create to decrypt elsewhere
	ci/demo.sh

KILLS ?= 200
chaos: deps ## kill daemons and cut networks for a long time; KILLS=200, SEED= replays one
	KEYFERRY_KILLS=$(KILLS) KEYFERRY_SEED=$(or $(SEED),$(shell date +%s%N)) $(GO) test ./ci/integration -run 'TestChaos$$' -v -timeout 3h

demo-boundary: deps build ## a thief with the user PIN tries everything on real tokens
	ci/demo-boundary.sh $(BIN)/keyferry-ceremony

bench: deps ## costs on top of the bare token, in one run
	$(GO) test -run '^$$' -bench . -benchtime 2s ./hsm ./keyops/... ./gateway ./replication

clean: ## remove what builds leave
	rm -rf $(BIN)
