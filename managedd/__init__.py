"""managedd: Prefect Managed on your own host.

Layers, from the top; a module imports only from layers below its own (siblings in one row do not import each other):

| layer         | modules                              |
|---------------|--------------------------------------|
| command line  | cli                                  |
| composition   | daemon                               |
| edges         | api, engine, drivers                 |
| state rules   | orchestration                        |
| store         | store                                |
| wire          | wire                                 |
| vocabulary    | model, bus, config, observe          |
| ground        | errors, clock, ids                   |
"""

from __future__ import annotations

__version__ = "0.1.0"
