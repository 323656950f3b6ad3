"""Job variables: layers, checks, rendering, references, and what a managed run makes of them."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.orchestration.job_variables import (
    BlockById,
    BlockByName,
    Reference,
    VariableByName,
    check_template,
    defaults_from_schema,
    find_references,
    merge,
    render,
    substitute,
    validate_job_variables,
)
from managedd.orchestration.managed_job import (
    DEFAULT_IMAGE,
    MAX_ENV,
    MAX_PACKAGES,
    ManagedJob,
    check_image,
    check_offered_variables,
    check_package,
    managed_job,
    parse_memory,
    strip_reserved,
)

BLOCK = "7f2a7f5e-7f0e-4b1e-9d1e-0a5d1c1b2a3d"
TEMPLATE: dict[str, Any] = {
    "job_configuration": {"env": "{{ env }}", "image": "{{ image }}", "size": "{{ size }}", "auth": "{{ auth }}"},
    "variables": {
        "type": "object",
        "properties": {
            "env": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "default": {"A": "pool", "B": "pool"},
            },
            "image": {"type": "string", "default": "base:1"},
            "size": {"type": "integer"},
            "labels": {"type": "object", "default": {"team": "x"}},
            "auth": {"type": "object"},
            "nothing": {"type": "string", "default": None},
        },
        "required": ["size"],
    },
}


def template(**variables: Any) -> dict[str, Any]:
    return {"job_configuration": {"x": 1}, "variables": {"type": "object", "properties": variables}}


class TestMerge:
    def test_defaults(self) -> None:
        assert defaults_from_schema(TEMPLATE) == {
            "env": {"A": "pool", "B": "pool"},
            "image": "base:1",
            "labels": {"team": "x"},
        }
        assert defaults_from_schema({}) == {}
        assert defaults_from_schema({"variables": {"properties": []}}) == {}

    def test_env_is_merged_key_by_key_and_the_rest_replaced(self) -> None:
        merged = merge(
            TEMPLATE,
            {"env": {"B": "deployment", "C": "deployment"}, "labels": {"a": "1"}, "size": 1},
            {"env": {"C": "run", "D": "run"}, "labels": {"b": "2"}},
        )
        assert merged["env"] == {"A": "pool", "B": "deployment", "C": "run", "D": "run"}
        assert merged["labels"] == {"b": "2"}
        assert merged["size"] == 1

    def test_dotted_keys_set_one_key_inside(self) -> None:
        merged = merge(TEMPLATE, {"env.B": "deployment", "env.C": "deployment"}, {"env.C": "run", "new.deep.er": 5})
        assert merged["env"] == {"A": "pool", "B": "deployment", "C": "run"}
        assert merged["new"] == {"deep": {"er": 5}}

    def test_the_nested_spelling_wins_within_a_layer_and_the_later_layer_over_both(self) -> None:
        assert merge(TEMPLATE, {"env.A": "dotted", "env": {"A": "nested"}})["env"]["A"] == "nested"
        assert merge(TEMPLATE, {"env": {"A": "nested"}}, {"env.A": "dotted"})["env"]["A"] == "dotted"

    def test_nothing_given_is_changed(self) -> None:
        deployment = {"env": {"A": "x"}, "labels": {}}
        before = repr((TEMPLATE, deployment))
        merged = merge(TEMPLATE, deployment, {"labels.z": "1", "env.Q": "2"})
        merged["env"]["more"] = "3"
        assert repr((TEMPLATE, deployment)) == before

    @pytest.mark.parametrize("layer", [{"image.x": 1}, {"env..x": 1}, {".x": 1}, {"a" + ".b" * 100: 1}])
    def test_a_path_that_leads_nowhere_is_named(self, layer: dict[str, Any]) -> None:
        with pytest.raises(ManagedError, match=r"job_variables\.") as caught:
            merge(TEMPLATE, layer)
        assert caught.value.code is ErrorCode.INVALID


class TestRender:
    @pytest.mark.parametrize(
        ("given", "rendered"),
        [
            ("{{ n }}", 5),
            ("{{n}}", 5),
            ("{{ list }}", [1, {"a": 2}]),
            ("{{ none }}", None),
            ("{{ deep.er }}", "x"),
            ("{{ list[1].a }}", 2),
            ("n={{ n }}, deep={{ deep.er }}", "n=5, deep=x"),
            ("{{ n }}{{ n }}", "55"),
            ("{{ missing }} there", " there"),
            ("{{ $HOME }}", ""),
            ("home {{ $HOME }}", "home "),
            ("{{ prefect.blocks.secret.x }}", "{{ prefect.blocks.secret.x }}"),
            ("a {{ prefect.variables.y }} {{ n }}", "a {{ prefect.variables.y }} 5"),
            ("{{ not valid }}", "{{ not valid }}"),
            ("{{ twice }}!", "{{ n }}!"),
            (7, 7),
            (True, True),
            (None, None),
            ({"a": "{{ n }}", "gone": "{{ missing }}"}, {"a": 5}),
            (["{{ n }}", "{{ missing }}", ["{{ missing }}"]], [5, []]),
        ],
    )
    def test_placeholders(self, given: Any, rendered: Any) -> None:
        values = {"n": 5, "list": [1, {"a": 2}], "none": None, "deep": {"er": "x"}, "twice": "{{ n }}"}
        assert render({"k": given}, values) == {"k": rendered}

    def test_a_missing_value_takes_its_key_away(self) -> None:
        assert render({"a": "{{ missing }}", "b": 1}, {}) == {"b": 1}

    def test_the_environment_of_the_daemon_is_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DAEMON_SECRET", "s3cret")
        assert "s3cret" not in repr(render({"a": "{{ $DAEMON_SECRET }}", "b": "x{{ $DAEMON_SECRET }}"}, {}))

    def test_an_env_that_the_configuration_spells_out_is_the_lowest_layer(self) -> None:
        configuration = {"env": {"A": "template", "B": "{{ size }}", "C": "template"}}
        values = merge(TEMPLATE, {"env": {"C": "deployment"}, "size": 3})
        assert render(configuration, values)["env"] == {"A": "pool", "B": "pool", "C": "deployment"}

    def test_values_are_copied(self) -> None:
        values = {"list": [1]}
        render({"k": "{{ list }}"}, values)["k"].append(2)
        assert values == {"list": [1]}

    def test_depth_and_growth_are_bounded(self) -> None:
        deep: Any = "x"
        for _ in range(100):
            deep = [deep]
        with pytest.raises(ManagedError, match="nested deeper"):
            render({"k": deep}, {})
        with pytest.raises(ManagedError, match="becomes longer"):
            render({"k": "{{ a }} " * 2000}, {"a": "x" * 1000})


class TestReferences:
    RESOLVED: ClassVar[dict[Reference, Any]] = {
        BlockByName(slug="secret", name="token"): {"value": "s3cret"},
        BlockByName(slug="json", name="config"): {"value": {"key": {"inner": [10, 20]}, "value": "v"}},
        BlockByName(slug="aws-credentials", name="aws"): {"id": "AK", "value": "own", "more": {"region": "eu"}},
        BlockById(id=BLOCK): {"username": "u", "password": "p"},
        VariableByName(name="region"): "eu",
        VariableByName(name="count"): 3,
        VariableByName(name="object"): {"a": [1]},
        VariableByName(name="tricky"): "{{ prefect.blocks.secret.token }}",
    }

    def test_every_kind_is_found_once(self) -> None:
        rendered = {
            "a": "{{ prefect.blocks.secret.token }}",
            "b": ["x {{ prefect.blocks.secret.token.value }} {{ prefect.variables.region }}"],
            "c": {"$ref": {"block_document_id": BLOCK.upper()}},
            "d": {"$ref": "#/definitions/X"},
            "e": "{{ plain }}",
        }
        assert find_references(rendered) == {
            BlockByName(slug="secret", name="token"),
            BlockById(id=BLOCK),
            VariableByName(name="region"),
        }

    @pytest.mark.parametrize(
        ("given", "result"),
        [
            ("{{ prefect.blocks.secret.token }}", "s3cret"),
            ("{{ prefect.blocks.secret.token.value }}", "s3cret"),
            ("https://x:{{ prefect.blocks.secret.token }}@host", "https://x:s3cret@host"),
            ("{{ prefect.blocks.json.config }}", {"key": {"inner": [10, 20]}, "value": "v"}),
            ("{{ prefect.blocks.json.config.key.inner[1] }}", 20),
            ("{{ prefect.blocks.json.config.value.key.inner[0] }}", 10),
            ("{{ prefect.blocks.aws-credentials.aws }}", {"id": "AK", "value": "own", "more": {"region": "eu"}}),
            ("{{ prefect.blocks.aws-credentials.aws.more.region }}", "eu"),
            ("{{ prefect.variables.region }}", "eu"),
            ("{{ prefect.variables.count }}", 3),
            ("{{ prefect.variables.object }}", {"a": [1]}),
            ("n={{ prefect.variables.count }} {{ prefect.variables.object }}", "n=3 {'a': [1]}"),
            ("{{ prefect.variables.nobody }}", ""),
            ("a{{ prefect.variables.nobody }}b", "ab"),
            ({"$ref": {"block_document_id": BLOCK}}, {"username": "u", "password": "p"}),
            ("{{ prefect.variables.tricky }}", "{{ prefect.blocks.secret.token }}"),
            ("{{ other }}", "{{ other }}"),
            ([1, None, {"$ref": "x"}], [1, None, {"$ref": "x"}]),
        ],
    )
    def test_substitution(self, given: Any, result: Any) -> None:
        assert substitute({"k": [given]}, self.RESOLVED) == {"k": [result]}

    def test_what_was_resolved_is_copied(self) -> None:
        substitute("{{ prefect.blocks.json.config }}", self.RESOLVED)["key"]["inner"].append(30)
        assert substitute("{{ prefect.blocks.json.config.key.inner }}", self.RESOLVED) == [10, 20]

    @pytest.mark.parametrize(
        ("given", "code", "says"),
        [
            ("{{ prefect.blocks.secret.nobody }}", ErrorCode.NOT_FOUND, "'nobody'"),
            ({"$ref": {"block_document_id": "00000000-0000-4000-8000-000000000009"}}, ErrorCode.NOT_FOUND, "000000009"),
            ("{{ prefect.blocks.aws-credentials.aws.nope }}", ErrorCode.INVALID, "has nothing at 'nope'"),
            ("x {{ prefect.blocks.json.config }}", ErrorCode.INVALID, "can't stand inside a longer text"),
        ],
    )
    def test_what_cannot_be_substituted(self, given: Any, code: ErrorCode, says: str) -> None:
        with pytest.raises(ManagedError, match=says) as caught:
            substitute(given, self.RESOLVED)
        assert caught.value.code is code
        assert "s3cret" not in caught.value.message

    @pytest.mark.parametrize(
        "given",
        ["{{ prefect.blocks.secret }}", "{{ prefect.blocks.secret. }}", {"$ref": {"block_document_id": "not-a-uuid"}}],
    )
    def test_a_reference_of_the_wrong_form_is_named(self, given: Any) -> None:
        with pytest.raises(ManagedError, match=r"job_variables: ") as caught:
            find_references({"k": given})
        assert caught.value.code is ErrorCode.INVALID


class TestTemplate:
    def test_good_ones(self) -> None:
        check_template({})
        check_template(TEMPLATE)
        check_template(
            {
                "job_configuration": {"a": "{{ env.X }} {{ prefect.variables.y }} {{ $HOME }}"},
                "variables": {"properties": {"env": {"type": "object"}}},
            }
        )
        check_template(
            template(
                credentials={"type": "object", "required": ["x"], "default": {"$ref": {"block_document_id": BLOCK}}}
            )
        )

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (5, "must be an object"),
            ({"job_configuration": {}}, "both 'job_configuration' and 'variables'"),
            ({"job_configuration": {"a": 1}}, "both"),
            ({"job_configuration": {"a": 1}, "variables": {}}, "both"),
            (
                {"job_configuration": {"a": ["{{ x }}"]}, "variables": {"properties": {"y": {}}}},
                "properties of 'variables': x",
            ),
            ({"job_configuration": {"a": 1}, "variables": {"type": "objekt"}}, "Invalid schema"),
            (template(n={"type": "integer", "default": "five"}), "field 'n'.*'five' is not"),
        ],
    )
    def test_bad_ones(self, given: Any, says: str) -> None:
        with pytest.raises(ManagedError, match=says) as caught:
            check_template(given)
        assert caught.value.code is ErrorCode.INVALID


class TestValidate:
    def test_good_ones(self) -> None:
        validate_job_variables(TEMPLATE, {"size": 3}, {"env": {"X": "1"}})
        validate_job_variables(TEMPLATE, {"image": "x"}, ignore_required=True)
        validate_job_variables(TEMPLATE, {"size": 3, "unknown": True})
        validate_job_variables(TEMPLATE, {"size": 3, "nothing": None, "image": None})
        validate_job_variables({}, {"anything": 1})
        validate_job_variables({"variables": {}}, {"anything": 1})

    def test_the_wrong_field_is_named_in_the_clients_words(self) -> None:
        with pytest.raises(ManagedError) as caught:
            validate_job_variables(TEMPLATE, {"size": "big"})
        assert caught.value.code is ErrorCode.INVALID
        assert caught.value.message == (
            "Error creating flow run: Validation failed for field 'size'. Failure reason: 'big' is not of type 'integer'"
        )
        with pytest.raises(ManagedError) as caught:
            validate_job_variables(TEMPLATE, {"env": {"X": 1}}, ignore_required=True, doing="Error creating deployment")
        assert caught.value.message.startswith("Error creating deployment: Validation failed for field 'env.X'. ")

    def test_dotted_keys_are_checked_where_they_lead(self) -> None:
        with pytest.raises(ManagedError, match=r"'env\.X'"):
            validate_job_variables(TEMPLATE, {"env.X": 1, "size": 1})
        with pytest.raises(ManagedError, match=r"^Error creating flow run: job_variables\.image\.x"):
            validate_job_variables(TEMPLATE, {"image.x": 1, "size": 1})

    def test_what_is_required_may_come_from_any_layer(self) -> None:
        with pytest.raises(ManagedError, match=r"Validation failed\. Failure reason: 'size' is a required property"):
            validate_job_variables(TEMPLATE)
        validate_job_variables(TEMPLATE, None, {"size": 1})

    def test_a_faulty_default_is_not_the_runs_fault(self) -> None:
        faulty = template(n={"type": "integer", "default": "five"}, m={"type": "string", "default": "fine"})
        faulty["variables"]["required"] = ["n", "k"]
        validate_job_variables(faulty)
        with pytest.raises(ManagedError, match="field 'm'"):
            validate_job_variables(faulty, {"m": 5})

    def test_references_to_blocks_are_taken_on_trust(self) -> None:
        strict = template(
            login={"type": "object", "properties": {}, "additionalProperties": False, "required": ["user"]}
        )
        strict["variables"]["required"] = ["login"]
        validate_job_variables(strict, {"login": {"$ref": {"block_document_id": BLOCK}}})
        with pytest.raises(ManagedError, match="login"):
            validate_job_variables(strict, {"login": {"other": 1}})


class TestManagedJob:
    def test_everything(self) -> None:
        job = managed_job(
            {
                "env": {"A": "1", "N": 5, "T": True, "F": 1.5, "gone": None},
                "image": "registry.example:5000/team/app:1.0",
                "pip_packages": ["pandas>=2", " requests "],
                "timeout": 3600,
                "memory_limit": "512Mi",
                "cpu_limit": 1.5,
                "federated_identity": None,
                "something_else": "kept out",
            }
        )
        assert job == ManagedJob(
            env={"A": "1", "N": "5", "T": "True", "F": "1.5"},
            image="registry.example:5000/team/app:1.0",
            pip_packages=("pandas>=2", "requests"),
            timeout_seconds=3600,
            memory_bytes=512 * 1024**2,
            cpus=1.5,
        )

    def test_nothing_is_all_defaults(self) -> None:
        assert managed_job({}) == ManagedJob(image=DEFAULT_IMAGE)
        empty = dict.fromkeys(("env", "image", "pip_packages", "timeout", "memory_limit", "cpu_limit"), "")
        assert managed_job(empty, default_image="mine:1") == ManagedJob(image="mine:1")

    @pytest.mark.parametrize(
        ("given", "bytes_"),
        [
            ("512Mi", 512 * 1024**2),
            ("2Gi", 2 * 1024**3),
            ("1G", 10**9),
            ("1GB", 10**9),
            ("1.5 GiB", 3 * 1024**3 // 2),
            ("65536k", 65_536_000),
            ("1Ti", 1024**4),
            (268_435_456, 268_435_456),
            (268_435_456.0, 268_435_456),
            ("268435456", 268_435_456),
        ],
    )
    def test_memory(self, given: Any, bytes_: int) -> None:
        assert parse_memory(given) == bytes_

    @pytest.mark.parametrize(
        "given",
        ["512m", "1g", "-1Gi", "Gi", "lots", "1e9", "1", 0, -5, 1.5, True, [1], None, "9" * 19 + "Ti", "1Xi", "1Gi\n1"],
    )
    def test_what_is_no_memory(self, given: Any) -> None:
        with pytest.raises(ManagedError, match=r"job_variables\.memory_limit: .*allowed: ") as caught:
            parse_memory(given)
        assert caught.value.code is ErrorCode.INVALID

    @pytest.mark.parametrize(("given", "cpus"), [(1, 1.0), (0.5, 0.5), ("500m", 0.5), ("2", 2.0), (" 1.5 ", 1.5)])
    def test_processors(self, given: Any, cpus: float) -> None:
        assert managed_job({"cpu_limit": given}).cpus == cpus

    @pytest.mark.parametrize(
        "given", [0, -1, "two", "m", float("nan"), float("inf"), "nan", "inf", 10**400, True, [1], 0.001]
    )
    def test_what_is_no_number_of_processors(self, given: Any) -> None:
        with pytest.raises(ManagedError, match=r"job_variables\.cpu_limit: .*allowed: "):
            managed_job({"cpu_limit": given})

    @pytest.mark.parametrize(("given", "seconds"), [(60, 60), ("60", 60), (60.0, 60)])
    def test_time(self, given: Any, seconds: int) -> None:
        assert managed_job({"timeout": given}).timeout_seconds == seconds

    @pytest.mark.parametrize("given", [0, -1, 1.5, "1h", "²", True, [60], 10**10, float("nan")])
    def test_what_is_no_time(self, given: Any) -> None:
        with pytest.raises(ManagedError, match=r"job_variables\.timeout: .*allowed: whole seconds"):
            managed_job({"timeout": given})

    @pytest.mark.parametrize(
        "image",
        [
            "python",
            "python:3.12",
            "prefecthq/prefect:3-latest",
            "docker.io/prefecthq/prefect:3-latest",
            "localhost:5000/a/b/c",
            "ghcr.io/Org/app".lower(),
            "registry.example.com:443/a_b/c--d/e.f:TAG_1.x-y",
            "app@sha256:" + "a" * 64,
            "reg.example/app:1@sha256:" + "0" * 64,
            "[::1]:5000/app",
        ],
    )
    def test_images(self, image: str) -> None:
        assert check_image(image) == image
        assert managed_job({"image": image}).image == image

    @pytest.mark.parametrize(
        "image",
        [
            "-v",
            "--privileged",
            "Python",
            "reg.example/App",
            "a b",
            "app:",
            "app:-x",
            "app:" + "t" * 129,
            "/app",
            "app/",
            "a//b",
            "http://reg/app",
            "app@sha256:short",
            "app\n",
            "app;rm",
            "$(x)",
            "a" * 256,
            5,
            ["app"],
            "a" + "-" * 590,
        ],
    )
    def test_what_is_no_image(self, image: Any) -> None:
        began = time.process_time()
        with pytest.raises(ManagedError, match=r"job_variables\.image: .*allowed: ") as caught:
            managed_job({"image": image})
        assert caught.value.code is ErrorCode.INVALID
        assert time.process_time() - began < 1

    @pytest.mark.parametrize(
        "package",
        [
            "pandas",
            "Pandas",
            "pandas==2.2.3",
            "pandas>=2,<3",
            "pandas >= 2 , < 3",
            "pandas (>=2)",
            "pandas[aws, excel]~=2.1",
            "pandas==2.*",
            "torch==2.5.1+cpu",
            "pandas; python_version < '3.13'",
            "pandas>=2 ; sys_platform == \"linux\" and extra == 'x'",
            "pkg @ https://host.example/pkg-1.0-py3-none-any.whl",
            "pkg[extra]@git+https://user:tok@github.com/a/b.git@v1#subdirectory=c",
            "git+https://${TOKEN}@github.com/a/b.git",
            "git+ssh://git@github.com/a/b.git",
            "https://host.example/pkg-1.0.tar.gz ; python_version > '3.9'",
            "file:///opt/wheels/pkg.whl",
        ],
    )
    def test_packages(self, package: str) -> None:
        assert check_package(package) == package
        assert managed_job({"pip_packages": [package]}).pip_packages == (package,)

    @pytest.mark.parametrize(
        "package",
        [
            "",
            " ",
            "-r /etc/passwd",
            "--index-url https://evil.example",
            "-e .",
            "pandas --index-url https://evil.example",
            "pandas\n--index-url https://evil.example",
            "pandas\rx",
            "pandas\\",
            "pandas\0",
            "pandas # a comment",
            "pandas==",
            "pandas = 2",
            "./local",
            "/etc/passwd",
            "../x",
            "C:\\x",
            "pandas requests",
            "pandas;",
            "pandas; `id`",
            "https://h/p.whl --hash=sha256:00",
            "git+https://h/r.git\t-e",
            "ftp://host/p",
            "pandas[",
            "$(id)",
            "ｐandas",
            "p" * 3000,
            "a" + "." * 1900,
            "a" + " " * 1900 + "!",
            "a[" + "b," * 900,
            5,
            None,
            ["pandas"],
        ],
    )
    def test_what_is_no_package(self, package: Any) -> None:
        began = time.process_time()
        with pytest.raises(ManagedError, match=r"job_variables\.pip_packages\[1\]: .*allowed: ") as caught:
            managed_job({"pip_packages": ["fine", package]})
        assert caught.value.code is ErrorCode.INVALID
        assert time.process_time() - began < 1

    def test_a_refused_url_is_not_repeated(self) -> None:
        with pytest.raises(ManagedError) as caught:
            check_package("https://user:s3cret@host/p.whl --pre")
        assert "s3cret" not in caught.value.message

    @pytest.mark.parametrize("packages", ["pandas", {"pandas": "2"}, 5])
    def test_packages_are_a_list(self, packages: Any) -> None:
        with pytest.raises(ManagedError, match="must be a list of pip requirements"):
            managed_job({"pip_packages": packages})

    def test_packages_are_bounded(self) -> None:
        managed_job({"pip_packages": ["pandas"] * MAX_PACKAGES})
        with pytest.raises(ManagedError, match=f"allowed: {MAX_PACKAGES}"):
            managed_job({"pip_packages": ["pandas"] * (MAX_PACKAGES + 1)})

    @pytest.mark.parametrize(
        ("env", "says"),
        [
            ("A=1", "must be an object"),
            (["A"], "must be an object"),
            ({"1A": "x"}, "'1A' is no name"),
            ({"A=B": "x"}, "no name"),
            ({"": "x"}, "no name"),
            ({"A B": "x"}, "no name"),
            ({"A\n": "x"}, "no name"),
            ({"A" * 256: "x"}, "no name"),
            ({"A": ["x"]}, r"job_variables\.env\.A: must be a text"),
            ({"A": "x\0y"}, "NUL"),
            ({"A": "x" * 100_001}, "longer than"),
            ({f"A{number}": "x" * 90_000 for number in range(12)}, "all together"),
            ({f"A{number}": "" for number in range(MAX_ENV + 1)}, "allowed: 1000"),
        ],
    )
    def test_what_is_no_environment(self, env: Any, says: str) -> None:
        with pytest.raises(ManagedError, match=says) as caught:
            managed_job({"env": env})
        assert caught.value.code is ErrorCode.INVALID
        assert caught.value.message.startswith("job_variables.env")

    def test_the_runs_own_names_are_taken_away(self) -> None:
        env = {
            "PREFECT_API_URL": "http://evil",
            "prefect_api_key": "x",
            "PREFECT_API_AUTH_STRING": "x",
            "PREFECT_CLOUD_API_URL": "x",
            "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
            "PREFECT_API": "{}",
            "prefect_client": "{}",
            "Prefect_Cloud": "{}",
            "PREFECT_HOME": "/x",
            "PREFECT_PROFILE": "x",
            "prefect_profiles_path": "/x",
            "PREFECT_UNIT_TEST_MODE": "1",
            "PREFECT__FLOW_RUN_ID": "x",
            "Prefect__Anything": "x",
            "MANAGEDD_RUN": "x",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "MY_PREFECT_API_URL": "kept",
            "A": "1",
        }
        kept, dropped = strip_reserved(env)
        assert kept == {"PREFECT_LOGGING_LEVEL": "DEBUG", "MY_PREFECT_API_URL": "kept", "A": "1"}
        assert set(dropped) == set(env) - set(kept)
        assert strip_reserved({}) == ({}, ())

    @pytest.mark.parametrize(
        ("env", "packages"),
        [
            ("s3fs>=2024 gcsfs", ("pandas", "s3fs>=2024", "gcsfs")),
            (" git+https://token@host/repo ", ("pandas", "git+https://token@host/repo")),
            ("", ("pandas",)),
        ],
    )
    def test_packages_for_the_image_are_installed_as_all_others(self, env: str, packages: tuple[str, ...]) -> None:
        job = managed_job({"pip_packages": ["pandas"], "env": {"EXTRA_PIP_PACKAGES": env, "A": "1"}})
        assert (job.pip_packages, job.env) == (packages, {"A": "1"})

    @pytest.mark.parametrize("given", ["--pre pandas", "-r more.txt", "./local", "a ;b"])
    def test_what_only_pip_understands_is_left_to_the_image(self, given: str) -> None:
        job = managed_job({"env": {"EXTRA_PIP_PACKAGES": given}})
        assert (job.pip_packages, job.env) == ((), {"EXTRA_PIP_PACKAGES": given})

    def test_packages_of_both_kinds_are_bounded_together(self) -> None:
        with pytest.raises(ManagedError, match="201 requirements; allowed: 200"):
            managed_job({"pip_packages": ["a"] * 101, "env": {"EXTRA_PIP_PACKAGES": "b " * 100}})

    @pytest.mark.parametrize("credentials", ["user:p@ss", "tok:en/slash", "user:p?w", "user:p#w"])
    def test_credentials_in_a_package_are_percent_encoded(self, credentials: str) -> None:
        for package in (
            f"x @ https://{credentials}@h/x.whl",
            f"git+https://{credentials}@h/r.git@main ; python_version > '3'",
        ):
            with pytest.raises(ManagedError, match="percent-encode") as caught:
                check_package(package)
            assert credentials not in caught.value.message

    def test_what_is_not_offered_is_explained(self) -> None:
        asked = {"federated_identity": {"aws_role_arn": "arn:aws:iam::1:role/x"}}
        for ask in (lambda: managed_job(asked), lambda: check_offered_variables(None, {}, asked)):
            with pytest.raises(ManagedError, match=r"federated_identity: .*not offered yet") as caught:
                ask()
            assert caught.value.code is ErrorCode.INVALID
        check_offered_variables(None, {}, {"federated_identity": None})


def test_a_template_checked_before_gives_the_same_verdict() -> None:
    validate_job_variables(TEMPLATE, {"size": 3}, template_checked=True)
    with pytest.raises(ManagedError, match="'big' is not of type 'integer'"):
        validate_job_variables(TEMPLATE, {"size": "big"}, template_checked=True)
