# The two commands: `make book` and `make test`. README.md gives the same steps without make.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: book test binder fuzz coverage mutants bench lint archive student instructor slides screenshots links audit clean

# All of it: a page depends on the module and on the packages too, which Sphinx does not know of.
book: .venv/book.done
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	touch _build/book.done

# For what is made of the built book: build it again if something has changed.
_build/book.done: $(shell find book gmcam _config.yml _toc.yml requirements.txt -type f -not -name '*.pyc')
	$(MAKE) book

test: .venv/test.done lint
	$(BIN)/python -m pytest

# Every notebook, in an environment made from Binder's files and with its memory.
binder: .venv/test.done
	$(BIN)/python -m pytest binder

# Networks, maps and damaged files at random, ten thousand for each test.
fuzz: .venv/test.done
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=nightly

# Lines and branches of gmcam that the tests run; takes a third longer than they do without.
coverage: .venv/test.done
	$(BIN)/python -m pytest -m "not book" --cov

# Small changes to what everything rests on, one at a time: does a test notice? See tests/survivors.md.
# One thread: each change runs in a fork, where OpenMP's other threads are gone and would be waited for.
mutants: .venv/test.done
	$(BIN)/python -m pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measures, and writes the tables that the book's page of benchmarks reads; DEVICE=cuda for a GPU.
DEVICE ?= cpu
bench: .venv/test.done
	$(BIN)/python benchmarks/methods.py --device $(DEVICE)
	$(BIN)/python benchmarks/scaling.py --device $(DEVICE)
	$(BIN)/python benchmarks/evaluation.py --device $(DEVICE)

# The built book as one file that opens from a USB stick.
archive: .venv/book.done _build/book.done
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/gmcam-book', 'zip', '_build', 'html')"

# The notebooks for a class: without solutions, and with them and the slips to watch for.
student instructor: .venv/book.done
	rm -rf _build/$@
	$(BIN)/python book/_tools/editions.py $@ _build/$@

# Lecture slides from the executed notebooks, a deck a chapter: open _build/slides/index.html.
slides: .venv/book.done _build/book.done
	$(BIN)/python book/_tools/slides.py

# The README's pictures, taken of the built book by Debian's Chromium.
screenshots: .venv/test.done _build/book.done
	$(BIN)/python screenshots/take.py _build/html screenshots

links: .venv/book.done
	$(BIN)/jupyter-book build . --builder linkcheck

# Has what is installed known vulnerabilities? Lists what its database does not tell.
audit: .venv/test.done
	$(BIN)/pip-audit --skip-editable --progress-spinner off

# A finished installation leaves a file, so that it is done again only when its list changes.
.venv/book.done: requirements.txt pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/test.done: .venv/book.done requirements-test.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@

clean:
	rm -rf .venv _build
