"""Plots of measurements with matplotlib, as SVG or PNG."""
