# Holds the message schema and codecs against the Kafka client jar.
$(BUILD)/leat-schema: $(call obj,tests/e2e/schema_dump.c) $(call lib,net) $(call lib,base) $(REAL)
	$(LINK)

.PHONY: schema-check codec-peer docs-protocol
schema-check: $(BUILD)/leat-schema
	python3 tests/e2e/schema_check.py $(BUILD)/leat-schema --doc docs/protocol.md
# Random messages through Kafka's own generated classes and back: the same bytes must come out.
codec-peer: $(BUILD)/leat-schema
	python3 tests/e2e/codec_peer.py $(BUILD)/leat-schema
docs-protocol: $(BUILD)/leat-schema
	python3 tests/e2e/schema_check.py $(BUILD)/leat-schema --doc docs/protocol.md --write
