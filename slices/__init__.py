"""Everything about making an expert: read, plan, extract, export, quantize, evaluate."""
