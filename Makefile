# Every target works on a fresh clone with Go, npm and git. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

DYNOXIDE := tools/dynoxide/node_modules/.package-lock.json
FUNCTIONS := $(patsubst functions/%/main.go,%,$(wildcard functions/*/main.go))
# The version that the binaries report.
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# How a function is built for Lambda: small and without cgo.
BUILD_FUNCTION = CGO_ENABLED=0 GOOS=linux GOARCH=$${TIDINGS_GOARCH:-arm64} go build -trimpath -tags lambda.norpc -ldflags "-s -w -X main.version=$(VERSION)"

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: run
run: bin/tidings tools ## Run everything on this machine (for example RUN="--receiver-fails 30%" passes flags)
	@bin/tidings local $(RUN)

.PHONY: build
build: bin/tidings ## Build the operator's tool (bin/tidings) and check that every function builds for Lambda
	@for f in $(FUNCTIONS); do echo "functions/$$f"; $(BUILD_FUNCTION) -o bin/lambda/$$f/bootstrap ./functions/$$f || exit 1; done

.PHONY: bin/tidings
bin/tidings:
	@go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/tidings ./cmd/tidings

.PHONY: tools
tools: $(DYNOXIDE) ## Fetch the local DynamoDB (dynoxide, pinned in tools/dynoxide)

$(DYNOXIDE): tools/dynoxide/package-lock.json
	npm ci --ignore-scripts --prefix tools/dynoxide --no-audit --no-fund --loglevel=error
	@# The lock file pins Linux on x86; other machines get the same version.
	@platform=$$(node -p 'process.platform + "-" + process.arch'); \
	  [ -x tools/dynoxide/node_modules/@dynoxide/$$platform/dynoxide ] || \
	  npm install --no-save --ignore-scripts --prefix tools/dynoxide --no-audit --no-fund --loglevel=error @dynoxide/$$platform@1.2.1
	@touch $@

.PHONY: test
test: tools ## Run all tests with the race detector
	@# Without debug information and vet, which make lint runs: 83 binaries are linked sooner.
	go test -race -vet=off -ldflags=-w -timeout 10m ./...

.PHONY: test-short
test-short: tools ## Run the quick tests, without the race detector (under 30 seconds once everything is compiled)
	go test -short ./...

.PHONY: test-brokers
test-brokers: tools ## Test the adapters and the store against real brokers (Kafka, ElasticMQ, moto, Pub/Sub emulator)
	@tools/brokers/fetch
	go test -tags brokers -count=1 -timeout 5m -run Real ./pkg/destination/... ./pkg/store/dynamo

.PHONY: test-cloud
test-cloud: ## Deliver to a real AWS queue and Google topic (tools/cloud creates them and prints the variables to set)
	go test -tags cloud -count=1 -v -timeout 5m -run 'TestCloud(Queue|Topic)$$' ./pkg/destination/builtin

.PHONY: cover
cover: tools ## Print the coverage of each package; fail below 90 % in the core, 80 % elsewhere
	@tools/cover

.PHONY: progress
progress: tools ## Run every command that docs/progress.md names, and print how many rows are proven
	@tools/progress

.PHONY: fuzz
fuzz: ## Fuzz everything that parses foreign input, a minute per target (FUZZTIME=5s, FUZZ=regexp)
	@FUZZTIME=$(or $(FUZZTIME),1m) FUZZ='$(or $(FUZZ),.)' tools/fuzz

.PHONY: simulate
simulate: ## Simulate the whole system under faults chosen by seeds (SEEDS=2000; SEED=123 prints one)
	@go run ./test/simulate -seeds $(or $(SEEDS),500) $(if $(SEED),-seed $(SEED))

.PHONY: simulate-mutants
simulate-mutants: ## Check that the simulation finds deliberate defects
	@go run ./test/simulate -mutants -seeds $(or $(SEEDS),1000)

.PHONY: mutation
mutation: tools ## Change the delivery path by operators, count the changes that the tests notice (SAMPLE=100; all takes hours)
	@go run ./test/mutation -sample $(or $(SAMPLE),0) $(MUTATION)

.PHONY: test-postgres
test-postgres: ## Test the outbox example on PostgreSQL (Debian's package, installed if missing)
	@bin=$$(tools/postgres/fetch) && TIDINGS_POSTGRES=$$bin go test -tags postgres -count=1 -timeout 5m ./examples/postgres-outbox

.PHONY: test-browser
test-browser: bin/tidings tools ## Test the console in Chromium: each page and action, accessibility (SCREENSHOTS=1 keeps pictures)
	@tools/browser/test

# Every test whose name begins with TestSecurity, and the browser.
.PHONY: test-security
test-security: bin/tidings tools ## Attack the project: tenants, roles, terminal, limits, API fuzz; pages of other origins in Chromium (2 minutes)
	go test -count=1 -timeout 5m -run '^TestSecurity' $$(grep -rl '^func TestSecurity' --include='*_test.go' cmd functions pkg test | xargs -n1 dirname | sort -u | sed 's|^|./|')
	@tools/browser/test security.test.mjs

.PHONY: lint
lint: ## gofmt, go vet and golangci-lint (pinned in tools/lint, installed on first use; LINTFLAGS=--fix passes flags)
	@unformatted=$$(gofmt -l cmd docs examples functions pkg test); [ -z "$$unformatted" ] || { echo "not gofmt-ed:"; echo "$$unformatted"; exit 1; }
	go vet -tags brokers,receiving,postgres,rig ./...
	@linter=$$(tools/lint/fetch) && echo "golangci-lint run" && "$$linter" run $(LINTFLAGS)

# What `sam build` calls, once per function.
build-%Function:
	@name=$$(echo $* | sed 's/\([a-z0-9]\)\([A-Z]\)/\1-\2/g' | tr A-Z a-z); \
	$(BUILD_FUNCTION) -o $(ARTIFACTS_DIR)/bootstrap ./functions/$$name

.PHONY: size
size: ## Binary size and package init of every function, against their limits
	@tools/size

.PHONY: verify-deploy
verify-deploy: tools ## Check the template and the built functions with AWS's own tools (sam, cfn-lint, checkov, the Lambda emulator)
	@tools/sam/fetch
	go test -tags rig -count=1 -v -timeout 20m ./test/verifydeploy $(UPDATE)

.PHONY: test-deploy
test-deploy: bin/tidings ## Deploy the template to an emulator of AWS; use, change and delete the stack (under 5 minutes)
	@tools/sam/fetch sam
	@tools/ministack/fetch
	go test -tags rig -count=1 -v -timeout 30m -run 'TestDeploy$$' ./test/deploy

.PHONY: test-deploying
test-deploying: bin/tidings ## Run every command of docs/deploying.md on that emulator, and of a table's capture, with GitHub's roles and a rollback (6 minutes)
	@tools/sam/fetch sam aws
	@tools/ministack/fetch
	go test -tags rig -count=1 -v -timeout 60m -run TestDeployingPage ./test/deploy

.PHONY: crash
crash: bin/tidings tools ## kill -9 the runner, DynamoDB and the receiver under load, and account for every event (about 3 minutes; SEED=…)
	go test -tags rig -count=1 -v -timeout 15m ./test/crash -seed $(or $(SEED),0)

.PHONY: verify-receiving
verify-receiving: ## Run the receivers of docs/receiving.md in eight languages; parse the AsyncAPI document officially
	@tools/receiving/fetch
	@cd tools/receiving && . ./environment && cd ../.. && \
	  go test -tags receiving -count=1 -run Receiving ./docs ./pkg/event/catalog/reference

.PHONY: drill
drill: ## Break the local runner in ten ways; check which alerts come and resolve (about 2 minutes)
	go test -tags rig -count=1 -v -timeout 30m ./test/drill

.PHONY: hostile
hostile: ## Play 190 misbehaving receivers to each adapter: TCP, TLS, HTTP/1, HTTP/2 frames, gRPC, Kafka (1 min; ONLY=GOAWAY)
	go test -tags rig -count=1 -v -timeout 5m ./test/hostile -only '$(ONLY)'

.PHONY: figures
figures: bin/tidings tools ## Measure latency, failures and kill -9 with real processes (about 6 minutes; EVENTS=1000 is quicker)
	go test -tags rig -count=1 -v -timeout 30m ./test/figures -events $(or $(EVENTS),10000)

.PHONY: bench-quick
bench-quick: tools ## Count an event's read and write units and requests, against test/bench/units.json (a minute)
	go run ./test/bench -quick

.PHONY: bench
bench: bin/tidings tools ## Measure how fast and how cheap it is (half an hour); rewrites the tables in docs/performance.md
	@mkdir -p bin && go build -trimpath -o bin/bench ./test/bench
	bin/bench -json bin/bench.json -docs docs/performance.md $(BENCH)

.PHONY: bench-cost
bench-cost: tools ## Print the cost of a million deliveries and of an idle month at list prices
	@go run ./test/bench -only cost
