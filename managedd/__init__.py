"""managedd: Prefect Managed on your own host.

Layers, from the top; a module imports only from layers below its own (siblings in one row do not import each other):

| layer         | modules                              |
|---------------|--------------------------------------|
| entry         | __main__                             |
| command line  | cli                                  |
| side shows    | demo, doctor                         |
| composition   | daemon                               |
| engine room   | engine_room                          |
| reloading     | reloading                            |
| host          | listeners, notify, signals           |
| web pages     | ui                                   |
| edges         | api, engine, drivers                 |
| state rules   | orchestration                        |
| store         | store                                |
| wire          | wire                                 |
| settings      | config                               |
| vocabulary    | model, bus, observe                  |
| ground        | errors, clock, ids, failpoints, starting, heap |

A library that could spread has a home; SQL text has the same home as SQLite:

| library       | only in                              |
|---------------|--------------------------------------|
| aiohttp.web   | api, ui, listeners, demo             |
| aiodocker     | drivers                              |
| aiosqlite     | store                                |
| sqlite3       | store                                |
| pydantic      | api, store, wire, config             |
| cryptography  | store                                |
| cyclopts      | cli                                  |
| rich          | cli                                  |
| prefect       |                                      |
"""

from __future__ import annotations

__version__ = "0.1.0"
