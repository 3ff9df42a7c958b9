"""Whole models: read into one small graph, folded into convolutions, compiled into one function."""

from tvmconv.hardware import home

home.ensure_cache()  # before any module of this room imports TVM, which fails without a home
