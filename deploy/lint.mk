# Style and static analysis; a warning is an error.

.PHONY: lint tidy format lint-format lint-clang-tidy lint-cppcheck

LINT_C := $(wildcard core/*.c core/*/*.c net/*.c net/messages/*.c storage/*.c perf/*.c tests/sim/*.c \
	tests/unit/*/*.c tests/fuzz/*.c tests/e2e/*.c tests/sanitize/*.c)
LINT_H := $(wildcard include/*.h core/*/*.h net/*.h storage/*.h perf/*.h tests/*/*.h tests/unit/*/*.h)
# Tests are compiled with the same warnings; the analyzers look at what ships.
LINT_SHIPPED := $(wildcard core/*.c core/*/*.c net/*.c net/messages/*.c storage/*.c perf/*.c)
LINT_FLAGS := -std=c11 -D_GNU_SOURCE -msse4.2 -mpclmul -Iinclude -Inet/messages -Inet
LINT_JOBS ?= $(shell nproc)

lint: lint-format tidy lint-cppcheck lint-clang-tidy
	@echo 'lint: clean'

lint-format:
	@clang-format --dry-run -Werror $(LINT_C) $(LINT_H)

format:
	@clang-format -i $(LINT_C) $(LINT_H)

lint-cppcheck:
	@mkdir -p $(BUILD)/lint/cppcheck
	@cppcheck -q -j $(LINT_JOBS) --std=c11 --enable=warning,performance,portability \
		--cppcheck-build-dir=$(BUILD)/lint/cppcheck --inline-suppr \
		--suppressions-list=deploy/cppcheck.txt --error-exitcode=1 \
		-D_GNU_SOURCE -D__x86_64__ --library=deploy/cppcheck.cfg \
		-Iinclude -Inet -Inet/messages $(LINT_SHIPPED)

# A file that passed is not looked at again until it, a header it includes or the rules change. All
# files once: 340 s of one processor, the slowest (core/group/group.c) 19 s, nearly all of it the
# analyzer's paths; no single check stands out.
LINT_STAMPS := $(patsubst %.c,$(BUILD)/lint/%.ok,$(LINT_SHIPPED))
lint-clang-tidy:
	@$(MAKE) -s --no-print-directory -j $(LINT_JOBS) $(LINT_STAMPS)
$(BUILD)/lint/%.ok: %.c .clang-tidy
	@mkdir -p $(@D)
	@$(CC) $(LINT_FLAGS) -MM -MP -MT $@ -MF $(@:.ok=.d) $<
	@clang-tidy --quiet $< -- $(LINT_FLAGS) >$@.out 2>&1 || { cat $@.out; exit 1; }
	@mv $@.out $@

# Lengths, layers, banned words, self-contained headers, essays, dead files.
tidy:
	@python3 tests/tidy.py
