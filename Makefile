# The two commands: `make book` and `make test`. README.md gives the same steps without make.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: book test binder nightly fuzz coverage mutants bench lint archive student instructor slides screenshots links audit clean

# --all: pages depend on the module and its packages too, and Sphinx does not track these.
book: .venv/book.done
	$(BIN)/jupyter-book build . --all -W -n --keep-going
	touch _build/book.done

# For targets that need the built book: build it again if a source has changed.
_build/book.done: $(shell find book gmcam _config.yml _toc.yml requirements.txt -type f -not -name '*.pyc')
	$(MAKE) book

# The book's tests beside all others, one thread each: threads of two processes would wait for each other.
test: export OMP_NUM_THREADS = 1
test: .venv/test.done lint
	@mkdir -p _build; trap 'kill 0' INT TERM; \
	$(BIN)/python -m pytest tests/book >_build/test-book.log 2>&1 & book=$$!; \
	$(BIN)/python -m pytest --ignore=tests/book; others=$$?; \
	echo "The book's tests:"; wait $$book; book=$$?; cat _build/test-book.log; exit $$((others + book))

# Run every notebook in an environment built from Binder's files, with Binder's memory.
binder: .venv/test.done
	$(BIN)/python -m pytest binder

# What `make test` leaves out: twenty kills of a run, two builds compared byte by byte.
nightly: .venv/test.done
	$(BIN)/python -m pytest -m nightly

# Random networks, maps and damaged files, ten thousand cases a test.
fuzz: .venv/test.done
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=nightly

# The lines and branches of gmcam that the tests reach; takes a third longer than the tests alone.
coverage: .venv/test.done
	$(BIN)/python -m pytest -m "not book" --cov

# Mutation testing: change the core one small edit at a time, and list the edits that no test detects.
# tests/survivors.md explains the edits that survive.
# One thread: each edit is tested in a fork, which lacks OpenMP's other threads and would wait for them.
mutants: .venv/test.done
	$(BIN)/python -m pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measure, and write the tables that the book's benchmark page reads; DEVICE=cuda for a GPU.
DEVICE ?= cpu
bench: .venv/test.done
	$(BIN)/python benchmarks/methods.py --device $(DEVICE)
	$(BIN)/python benchmarks/scaling.py --device $(DEVICE)
	$(BIN)/python benchmarks/evaluation.py --device $(DEVICE)

# The built book as one file that opens from a USB stick.
archive: .venv/book.done _build/book.done
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/gmcam-book', 'zip', '_build', 'html')"

# The notebooks for a class: without solutions, and with solutions and the mistakes to watch for.
student instructor: .venv/book.done
	rm -rf _build/$@
	$(BIN)/python book/_tools/editions.py $@ _build/$@

# Lecture slides from the executed notebooks, one deck per chapter: open _build/slides/index.html.
slides: .venv/book.done _build/book.done
	$(BIN)/python book/_tools/slides.py

# The README's screenshots, taken of the built book with Debian's Chromium.
screenshots: .venv/test.done _build/book.done
	$(BIN)/python screenshots/take.py _build/html screenshots

links: .venv/book.done
	$(BIN)/jupyter-book build . --builder linkcheck

# Check the installed packages for known vulnerabilities; lists those that the database does not cover.
audit: .venv/test.done
	$(BIN)/pip-audit --skip-editable --progress-spinner off

# A finished installation leaves a file, so make installs again only when the requirements change.
.venv/book.done: requirements.txt pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/test.done: .venv/book.done requirements-test.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@

clean:
	rm -rf .venv _build
