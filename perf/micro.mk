# Micro-benchmarks of single layers; see each file's head.
$(BUILD)/micro_echo: $(call obj,perf/micro_echo.c) $(call lib,net) $(call lib,shard) $(call lib,base) $(REAL)
	$(LINK)
