# Setting a machine up, running, installing, generated pages.

PREFIX ?= /usr/local
# Where leat looks for its files; not a matter of taste.
SYSCONFDIR := /etc
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/leat
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
INSTALLED_PROGRAMS := leat leatctl leat-bench leat-show

.PHONY: deps deps-build deps-run run install uninstall docs docs-check

# All packages of deploy/packages.txt; deps-build only what building needs, deps-run what trying needs too.
deps:
	@deploy/deps.sh build run test lint
deps-build:
	@deploy/deps.sh build
deps-run:
	@deploy/deps.sh build run

# Sub-make, because the packages must be there before the compiler is asked anything.
run: deps-run
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@$(BUILD)/leat $(ARGS)

install: $(addprefix $(BUILD)/,$(INSTALLED_PROGRAMS))
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(MANDIR)/man1 $(MANDIR)/man5 $(DOCDIR) $(UNITDIR) \
		$(SYSUSERSDIR) $(COMPLETIONDIR) $(SYSCONFDIR)/leat/conf.d)
	install -m 755 $^ $(DESTDIR)$(BINDIR)/
	install -m 644 deploy/man/*.1 $(DESTDIR)$(MANDIR)/man1/
	install -m 644 deploy/man/*.5 $(DESTDIR)$(MANDIR)/man5/
	sed 's|@BINDIR@|$(BINDIR)|g' deploy/leat.service \
		> $(DESTDIR)$(UNITDIR)/leat.service
	chmod 644 $(DESTDIR)$(UNITDIR)/leat.service
	install -m 644 deploy/leat.sysusers $(DESTDIR)$(SYSUSERSDIR)/leat.conf
	install -m 644 deploy/leatctl.bash $(DESTDIR)$(COMPLETIONDIR)/leatctl
	ln -sf leatctl $(DESTDIR)$(COMPLETIONDIR)/leat
	install -m 644 deploy/leat.conf $(DESTDIR)$(DOCDIR)/leat.conf.example
	install -m 644 LICENSE docs/configuration.md $(DESTDIR)$(DOCDIR)/
	@# An administrator's own file is never overwritten.
	[ -e $(DESTDIR)$(SYSCONFDIR)/leat/leat.conf ] || \
		install -m 644 deploy/leat.conf $(DESTDIR)$(SYSCONFDIR)/leat/leat.conf
	@[ -n "$(DESTDIR)" ] || echo 'installed; now: systemd-sysusers && systemctl daemon-reload &&' \
		'systemctl enable --now leat'

# Leaves configuration and data.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(INSTALLED_PROGRAMS)) \
		$(addprefix $(DESTDIR)$(MANDIR)/man1/,$(notdir $(wildcard deploy/man/*.1))) \
		$(addprefix $(DESTDIR)$(MANDIR)/man5/,$(notdir $(wildcard deploy/man/*.5))) \
		$(DESTDIR)$(UNITDIR)/leat.service $(DESTDIR)$(SYSUSERSDIR)/leat.conf \
		$(DESTDIR)$(COMPLETIONDIR)/leatctl $(DESTDIR)$(COMPLETIONDIR)/leat
	rm -rf $(DESTDIR)$(DOCDIR)

# The reference page comes from include/config.def, the table of costs from the model.
docs: $(BUILD)/leat $(BUILD)/leatctl
	$(BUILD)/leat --print-config-reference > docs/configuration.md
	$(BUILD)/leatctl cost model | sed -i -e '/^<!-- leatctl cost model -->/,/^<!-- end -->/{/^|/d}' \
		-e '/^<!-- leatctl cost model -->/r /dev/stdin' docs/cost.md
docs-check: $(BUILD)/leat $(BUILD)/leatctl
	@$(BUILD)/leat --print-config-reference | diff -u docs/configuration.md - >&2 || \
		{ echo 'docs/configuration.md is old: run make docs' >&2; exit 1; }
	@$(BUILD)/leatctl cost model > $(BUILD)/cost_model.md
	@sed -n '/^<!-- leatctl cost model -->/,/^<!-- end -->/{/^|/p}' docs/cost.md | \
		diff -u - $(BUILD)/cost_model.md >&2 || { echo 'docs/cost.md is old: run make docs' >&2; exit 1; }
