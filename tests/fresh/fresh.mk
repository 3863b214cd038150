# Both commands of the README on bare Debians; see run. Needs root and an hour; not a part of make test.
.PHONY: fresh
fresh:
	@nice tests/fresh/run bookworm
	@nice tests/fresh/run trixie
