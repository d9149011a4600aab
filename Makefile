# The two commands of a new user are `make run` and `make test`. Both build the same pinned environment
# first (infra/build_env; a second call takes no time). Needs Python 3.11 or newer, and make; nothing else.

.DEFAULT_GOAL := help
.PHONY: help env run test check bench-gates bench-utility bench-serving chaos fuzz

help:
	@echo "make run              build the environment, then take the telemarketing model from CSV to promoted"
	@echo "make test             build the environment, then every check: ruff, mypy, imports, pytest, end to end"
	@echo "make test ARGS='...'  the same, with arguments for pytest, e.g. ARGS='tests/policies -k utility'"
	@echo "make check            the same as make test"
	@echo "make bench-gates      our gates against the usual ones: false rollbacks, detections, time (ARGS='--runs 500')"
	@echo "make bench-utility    savings on real data against the usual models, fairlearn, empulse (ARGS='--quick')"
	@echo "make bench-serving    /decide alone, through Envoy and its peers: rate, latency, CPU (ARGS='--rounds 5', ARGS=soak)"
	@echo "make chaos            kill every part under load, write infra/reliability.md (ARGS='--only NAME', '--list')"
	@echo "make fuzz             schemathesis against /decide and the control service, long (ARGS='-k control')"
	@echo "make env              build the environment only (.venv)"
	@echo "PYTHON=python3.12 make env  choose the interpreter"

env:
	@infra/build_env

run: env
	@.venv/bin/trimtab run $(ARGS)

test check: env
	@infra/check $(ARGS)

bench-gates: env
	@OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/gates/bench_gates.py $(ARGS)

bench-utility: env
	@tests/benchmarks/utility/run $(ARGS)

bench-serving: env
	@tests/benchmarks/serving/run $(ARGS)

chaos: env
	@PYTHONPATH=. .venv/bin/python tests/chaos/run_chaos.py $(ARGS)

fuzz: env
	@TRIMTAB_FUZZ_EXAMPLES=$${TRIMTAB_FUZZ_EXAMPLES:-500} .venv/bin/pytest tests/security/test_fuzzed_interfaces.py $(ARGS)
