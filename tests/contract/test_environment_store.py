"""What a workspace promises, over SQLite and over a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from envbuild.errors import WorkspaceError
from envbuild.oci.digest import digest_bytes
from envbuild.targets.base import TargetRecord
from envbuild.workspace.base import NewRun
from envbuild.workspace.store import EnvironmentStore
from tests.unit.workspace.stores import START, digest, image, new_version, open_store


@pytest.fixture
def ws(location: str) -> Iterator[EnvironmentStore]:
    opened = open_store(location)
    yield opened
    opened.close()


def add(ws: EnvironmentStore, name: str, number: int, **more: object) -> str:
    """The version that a definition gets."""
    return ws.register(new_version(name, number, content=f"n: {number}\n", **more)).version.version


def said(error: pytest.ExceptionInfo[WorkspaceError]) -> tuple[str, str | None]:
    return error.value.message, error.value.hint


def test_one_definition_is_one_version(ws: EnvironmentStore) -> None:
    first = ws.register(
        new_version(
            "train",
            1,
            content="a: 1\n",
            tags=(("team", "risk"),),
            origin="x.yaml",
        )
    )
    again = ws.register(new_version("train", 1, content="a: 1 # other\n"))
    assert (first.created, again.created) == (True, False)
    assert again.version == first.version
    found = first.version
    assert (found.reference, found.content, found.origin) == ("train:1", "a: 1\n", "x.yaml")
    assert (found.tags, found.creator) == ((("team", "risk"),), "ada")
    assert found.created == START + timedelta(seconds=1)
    assert found.created.tzinfo is not None
    assert found.created.utcoffset() == timedelta(0)
    assert [event.action for event in ws.history()] == ["register"]


def test_versions_count_up_from_the_largest_integer(ws: EnvironmentStore) -> None:
    assert add(ws, "train", 1) == "1"
    assert add(ws, "train", 2, version="7") == "7"
    assert add(ws, "train", 3, version="beta") == "beta"
    assert add(ws, "train", 4, version="2") == "2"
    assert add(ws, "train", 5) == "8"
    # More digits than a column holds: text.
    assert add(ws, "train", 6, version="9" * 19) == "9" * 19
    assert add(ws, "train", 7) == "9"
    assert add(ws, "other", 1) == "1"
    assert ws.get("train").version == "9"


def test_explicit_version_of_another_definition_is_a_conflict(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    with pytest.raises(WorkspaceError) as error:
        add(ws, "train", 2, version="1")
    assert said(error) == (
        f"train:1 is {digest(1)}, which differs from {digest(2)}",
        "a version never changes: leave the version out to get the next one",
    )
    assert error.value.exit_code == 8
    assert [each.version for each in ws.versions("train")] == ["1"]


def test_second_version_of_one_definition_is_a_conflict(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    with pytest.raises(WorkspaceError) as error:
        add(ws, "train", 1, version="2")
    assert said(error) == (
        "train has this definition as version 1: not 2",
        "use train:1, or give it a label",
    )
    assert add(ws, "train", 1, version="1") == "1"


def test_failed_first_registration_leaves_no_environment(ws: EnvironmentStore) -> None:
    with pytest.raises(WorkspaceError, match="build context"):
        ws.register(new_version("train", 1, content="", context=digest(5)))
    assert ws.list(include_anonymous=True) == ()
    assert ws.history() == ()


@pytest.mark.parametrize("name", ["AzureML-sklearn", "microsoft.x", "azureml"])
def test_reserved_names_are_refused_but_may_be_recorded(ws: EnvironmentStore, name: str) -> None:
    with pytest.raises(WorkspaceError, match="are reserved"):
        add(ws, name, 1)
    assert ws.register(new_version(name, 1, content="", anonymous=True)).created
    add(ws, "mine", 1)
    with pytest.raises(WorkspaceError, match="are reserved"):
        ws.clone("mine", "1", name)


@pytest.mark.parametrize("text", ["", "a b", "-x", "../x", "a/b", "x" * 256, "é", "a\n"])
def test_names_versions_and_labels_have_a_form(ws: EnvironmentStore, text: str) -> None:
    for what in (
        lambda: add(ws, text, 1),
        lambda: add(ws, "train", 1, version=text),
        lambda: add(ws, "train", 1, labels=[text]),
        lambda: ws.get(text),
    ):
        with pytest.raises(WorkspaceError, match="can't be the name of"):
            what()


def test_anonymous_version_is_never_latest_and_becomes_a_normal_one(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    recorded = ws.register(new_version("train", 2, content="b: 2\n", anonymous=True))
    digits = digest(2)[7:19]
    assert (recorded.created, recorded.version.version, recorded.version.anonymous) == (True, digits, True)
    assert not ws.register(new_version("train", 2, content="", anonymous=True)).created
    assert ws.get("train").version == "1"
    assert ws.get("train", digits).content == "b: 2\n"
    assert [each.version for each in ws.versions("train")] == ["1"]
    assert [each.version for each in ws.versions("train", include_anonymous=True)] == [digits, "1"]

    promoted = ws.register(new_version("train", 2, content="ignored", labels=("prod",)))
    assert (promoted.created, promoted.version.version, promoted.version.anonymous) == (True, "2", False)
    assert (promoted.version.content, promoted.version.labels) == ("b: 2\n", ("prod",))
    assert ws.get("train").version == "2"
    # What a log or a label of an image says still leads there.
    assert ws.get("train", digits).version == "2"
    assert [event.action for event in ws.history("train")] == ["label", "register", "record", "register"]


def test_anonymous_registration_of_a_normal_version_changes_nothing(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, description="d")
    again = ws.register(new_version("train", 1, content="", anonymous=True, description="other"))
    assert (again.created, again.version.version, again.version.description) == (False, "1", "d")


def test_only_anonymous_environment_is_hidden_and_has_no_latest(ws: EnvironmentStore) -> None:
    ws.register(new_version("scratch", 1, content="", anonymous=True))
    assert ws.list() == ()
    (found,) = ws.list(include_anonymous=True)
    assert (found.name, found.latest, found.count) == ("scratch", None, 0)
    with pytest.raises(WorkspaceError, match="no registered version, only anonymous ones"):
        ws.get("scratch")


def test_anonymous_version_has_neither_version_nor_labels(ws: EnvironmentStore) -> None:
    for more in ({"version": "1"}, {"labels": ["prod"]}):
        with pytest.raises(WorkspaceError, match="neither a version nor labels"):
            add(ws, "train", 1, anonymous=True, **more)
    ws.register(new_version("train", 1, content="", anonymous=True))
    with pytest.raises(WorkspaceError, match="is anonymous and can't have labels"):
        ws.label("train", digest(1)[7:19], ["prod"])


def test_labels_move_and_are_taken_away(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, labels=["prod", "old"])
    add(ws, "train", 2)
    assert ws.label("train", "2", ["prod"]).labels == ("prod",)
    assert ws.get("train", label="prod").version == "2"
    assert ws.get("train", "1").labels == ("old",)
    assert ws.get("train", label="latest").version == "2"
    event = ws.history("train", limit=1)[0]
    assert (event.action, event.version) == ("label", "2")
    assert event.detail == {"labels": ["prod"], "taken_from": {"prod": "1"}}
    ws.unlabel("train", ["prod"])
    with pytest.raises(WorkspaceError) as error:
        ws.get("train", label="prod")
    assert said(error) == ("train has no label 'prod'", "known labels: latest, old")


def test_unlabel_takes_all_or_none(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, labels=["prod"])
    with pytest.raises(WorkspaceError) as error:
        ws.unlabel("train", ["prod", "pord"])
    assert said(error) == ("train has no label 'pord'", "did you mean prod?")
    assert ws.get("train").labels == ("prod",)


def test_latest_is_no_label_and_no_version_to_be_set(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    for what in (
        lambda: ws.label("train", "1", ["latest"]),
        lambda: ws.unlabel("train", ["Latest"]),
        lambda: add(ws, "train", 2, version="latest"),
    ):
        with pytest.raises(WorkspaceError, match="'latest'"):
            what()


def test_version_and_label_at_once_are_refused(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    with pytest.raises(WorkspaceError, match="a version and a label at once"):
        ws.get("train", "1", "latest")


def test_description_and_tags_are_updated_and_the_history_keeps_what_was(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, description="first", tags=[("b", "2"), ("a", "1")])
    changed = ws.update("train", "1", description="second", tags=[("c", "3")])
    assert (changed.description, changed.tags) == ("second", (("c", "3"),))
    assert ws.get("train") == changed
    event = ws.history(limit=1)[0]
    assert (event.action, event.at) == ("update", START + timedelta(seconds=2))
    assert event.detail == {
        "before": {"description": "first", "tags": {"a": "1", "b": "2"}},
        "after": {"description": "second", "tags": {"c": "3"}},
    }
    assert ws.update("train", "1", tags=[]).tags == ()
    before = ws.history()
    ws.update("train", "1", description="second")
    assert ws.history() == before


def test_registering_again_sets_what_is_given(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, description="first", tags=[("a", "1")])
    again = ws.register(new_version("train", 1, content="", description="", labels=("prod",)))
    assert (again.created, again.version.description) == (False, "")
    assert (again.version.tags, again.version.labels) == ((("a", "1"),), ("prod",))


def test_archived_version_is_hidden_but_usable(ws: EnvironmentStore) -> None:
    for number in (1, 2):
        add(ws, "train", number, labels=[f"l{number}"])
    ws.archive("train", "2")
    assert ws.get("train").version == "1"
    assert [each.version for each in ws.versions("train")] == ["1"]
    assert [each.version for each in ws.versions("train", include_archived=True)] == ["2", "1"]
    assert ws.get("train", "2").archived
    assert ws.get("train", label="l2").version == "2"
    (summary,) = ws.list()
    assert (summary.latest, summary.count, summary.labels) == ("1", 2, (("l1", "1"), ("l2", "2")))
    ws.archive("train", "1")
    with pytest.raises(WorkspaceError) as error:
        ws.get("train")
    assert said(error) == ("every version of train is archived", "name a version, or restore one")
    # It is still the same definition, and numbers are not used twice.
    assert add(ws, "train", 2) == "2"
    assert add(ws, "train", 3) == "3"
    ws.restore("train", "2")
    ws.restore("train", "2")
    assert [event.action for event in ws.history("train", limit=2)] == ["restore", "register"]


def test_archived_environment_is_hidden_and_takes_no_new_version(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    ws.archive("train")
    assert ws.list() == ()
    (summary,) = ws.list(include_archived=True)
    assert (summary.archived, summary.latest) == (True, None)
    assert ws.get("train", "1").version == "1"
    with pytest.raises(WorkspaceError) as error:
        ws.get("train")
    assert said(error) == ("train is archived", "name a version, or restore train")
    with pytest.raises(WorkspaceError, match="takes no new version"):
        add(ws, "train", 2)
    assert add(ws, "train", 1) == "1"
    assert ws.register(new_version("train", 2, content="", anonymous=True)).created
    ws.restore("train")
    assert add(ws, "train", 3) == "2"


def test_clone_takes_all_but_labels(ws: EnvironmentStore) -> None:
    ws.add_context(digest(50), b"archive")
    add(ws, "train", 1, description="d", tags=[("a", "1")], labels=["prod"], context=digest(50))
    cloned = ws.clone("train", "1", "mine")
    found = cloned.version
    assert (cloned.created, found.reference, found.origin) == (True, "mine:1", "train:1")
    assert (found.content, found.definition) == ("n: 1\n", digest(1))
    assert (found.description, found.tags, found.labels) == ("d", (("a", "1"),), ())
    assert found.context == digest(50)
    assert not ws.clone("train", "1", "mine").created
    assert ws.clone("train", "1", "third", new_version="7").version.version == "7"
    assert [each.reference for each in ws.by_definition(digest(1))] == ["mine:1", "third:7", "train:1"]
    event = ws.history("mine")[0]
    assert (event.action, event.detail["origin"]) == ("clone", "train:1")
    with pytest.raises(WorkspaceError, match="needs another name"):
        ws.clone("train", "1", "train")


def test_environments_come_in_pages_by_name(ws: EnvironmentStore) -> None:
    for number, name in enumerate(["b", "B", "a.x", "a-y", "a_z", "c"]):
        add(ws, name, number)
    names = ["B", "a-y", "a.x", "a_z", "b", "c"]
    assert [environment.name for environment in ws.list()] == names
    assert [environment.name for environment in ws.list(limit=2)] == names[:2]
    assert [environment.name for environment in ws.list(limit=3, after="a-y")] == names[2:5]
    assert [environment.name for environment in ws.list(prefix="a")] == names[1:4]
    assert [environment.name for environment in ws.list(prefix="a_")] == ["a_z"]
    assert ws.list(limit=0) == ()


def test_summary_describes_the_latest_version(ws: EnvironmentStore) -> None:
    add(ws, "train", 1, description="first", tags=[("a", "1")], labels=["prod"])
    add(ws, "train", 2, description="second", tags=[("b", "2")], labels=["next"])
    (found,) = ws.list()
    assert (found.latest, found.count, found.description) == ("2", 2, "second")
    assert (found.tags, found.labels) == ((("b", "2"),), (("next", "2"), ("prod", "1")))
    assert found.updated == START + timedelta(seconds=2)


def test_versions_come_in_pages(ws: EnvironmentStore) -> None:
    for number in range(1, 6):
        add(ws, "train", number)
    assert [each.version for each in ws.versions("train", limit=2)] == ["5", "4"]
    assert [each.version for each in ws.versions("train", limit=2, before="4")] == ["3", "2"]


@pytest.mark.parametrize(
    ("wanted", "hint"), [("trian", "did you mean train?"), ("zzz", "known environments: serve, train")]
)
def test_unknown_environment_names_the_nearest(ws: EnvironmentStore, wanted: str, hint: str) -> None:
    add(ws, "train", 1)
    add(ws, "serve", 1)
    for what in (
        lambda: ws.get(wanted),
        lambda: ws.versions(wanted),
        lambda: ws.archive(wanted),
        lambda: ws.clone(wanted, "1", "x"),
        lambda: ws.history(wanted),
        lambda: ws.images(name=wanted),
    ):
        with pytest.raises(WorkspaceError) as error:
            what()
        assert said(error) == (f"there is no environment {wanted!r}", hint)


def test_unknown_version_names_the_nearest(ws: EnvironmentStore) -> None:
    with pytest.raises(WorkspaceError) as error:
        ws.get("train")
    assert said(error) == ("there is no environment 'train'", "there are no environments yet")
    add(ws, "train", 1, version="1.0-beta", labels=["prod"])
    add(ws, "train", 2)
    hints = {"1.0-bta": "did you mean 1.0-beta?", "9": "known versions: 1, 1.0-beta"}
    hints["prod"] = "prod is a label: train@prod"
    hints["latest"] = "latest is a label: train@latest"
    for version, hint in hints.items():
        with pytest.raises(WorkspaceError) as error:
            ws.get("train", version)
        assert said(error) == (f"train has no version {version!r}", hint)


def test_image_leads_back_to_spec_and_lock(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    files = {
        "envbuild.lock": b'{"x": 1}',
        "requirements.linux-64.txt": b"numpy==2\n" * 1000,
        "empty.txt": b"",
    }
    lock = ws.add_lock(digest(1), ["linux/arm64", "linux/amd64"], files)
    assert lock.digest == digest_bytes(files["envbuild.lock"])
    assert (lock.platforms, dict(lock.files)) == (("linux/amd64", "linux/arm64"), files)
    ws.clone("train", "1", "mine")
    made = ws.add_image(image(70, lock=lock.digest, references=("b:1", "a:1"), indexes=(digest(71),)))
    assert made.versions == (("mine", "1"), ("train", "1"))
    assert made.references == ("a:1", "b:1")
    assert ws.image(digest(70)) == made
    assert ws.image(digest(71)) == made
    assert ws.image(digest(72)) is None
    assert made.lock is not None
    assert ws.lock_by_digest(made.lock) == lock
    again = ws.add_image(image(70, lock=lock.digest, references=("c:1", "a:1")))
    assert (again.references, again.created) == (("a:1", "b:1", "c:1"), made.created)
    actions = [event.action for event in ws.history("train")]
    assert actions == ["image", "image", "lock", "register"]
    assert ws.history("train", limit=1)[0].detail["references"] == ["c:1"]


def test_newest_lock_counts_and_an_old_one_may_come_back(ws: EnvironmentStore) -> None:
    one, two = ({"envbuild.lock": each} for each in (b"1", b"2"))
    assert ws.lock(digest(1)) is None
    first = ws.add_lock(digest(1), ["linux/amd64"], one)
    second = ws.add_lock(digest(1), ["linux/amd64"], two)
    assert ws.lock(digest(1)) == second
    assert ws.add_lock(digest(1), ["linux/amd64"], one) == first
    assert ws.lock(digest(1)) == first
    events = ws.history()
    ws.add_lock(digest(1), ["linux/amd64"], one)
    assert ws.history() == events
    with pytest.raises(WorkspaceError, match="answers"):
        ws.add_lock(digest(2), ["linux/amd64"], one)


def test_images_are_found_by_what_they_belong_to(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    add(ws, "train", 2)
    for number, definition in ((70, 1), (71, 2), (72, 3)):
        ws.add_image(image(number, definition=definition, indexes=(digest(80 + definition % 2),)))

    def found(**wanted: object) -> list[int]:
        return [int(each.digest[7:15], 16) for each in ws.images(**wanted)]  # type: ignore[arg-type]

    assert found() == [72, 71, 70]
    assert found(limit=1) == [72]
    assert found(name="train") == [71, 70]
    assert found(name="train", version="1") == [70]
    assert found(definition=digest(3)) == [72]
    assert found(index=digest(81)) == [72, 70]
    # An index of two images is none of them.
    assert ws.image(digest(81)) is None
    with pytest.raises(WorkspaceError, match="without the name"):
        ws.images(version="1")


def test_image_of_another_definition_or_an_unknown_lock_is_refused(ws: EnvironmentStore) -> None:
    ws.add_image(image(70))
    with pytest.raises(WorkspaceError, match="is one of"):
        ws.add_image(image(70, definition=2))
    with pytest.raises(WorkspaceError, match="isn't in the workspace"):
        ws.add_image(image(71, lock=digest(5)))
    assert len(ws.images()) == 1


def test_contexts_are_kept_once(ws: EnvironmentStore) -> None:
    ws.add_context(digest(1), b"\x00archive")
    ws.add_context(digest(1), b"\x00archive")
    assert ws.context(digest(1)) == b"\x00archive"
    assert [event.action for event in ws.history()] == ["context"]
    with pytest.raises(WorkspaceError, match="isn't in the workspace"):
        ws.context(digest(2))


def test_history_comes_in_pages(ws: EnvironmentStore) -> None:
    for number in range(1, 5):
        add(ws, "train", number)
    newest = ws.history(limit=2)
    assert [event.version for event in newest] == ["4", "3"]
    assert [event.version for event in ws.history(limit=9, before=newest[-1].number)] == ["2", "1"]
    assert {event.actor for event in ws.history("train")} == {"ada"}


def test_text_that_no_database_keeps_is_refused(ws: EnvironmentStore) -> None:
    for more in (
        {"description": "a\x00b"},
        {"tags": [("a", "\ud800")]},
        {"tags": [("a", "1"), ("a", "2")]},
        {"origin": "x" * 70_000},
        {"tags": [(str(number), "") for number in range(300)]},
    ):
        with pytest.raises(WorkspaceError):
            add(ws, "train", 1, **more)
    text = "żółć 😀 '; DROP TABLE envbuild_events; -- %s %(x)s \\"
    add(ws, "train", 1, description=text, tags=[(text, text)], origin=text)
    found = ws.get("train")
    assert (found.description, found.tags, found.origin) == (text, ((text, text),), text)


def test_another_session_sees_what_the_first_one_did(ws: EnvironmentStore, location: str) -> None:
    add(ws, "train", 1)
    other = open_store(location, actor="grace")
    assert other.get("train") == ws.get("train")
    add(other, "train", 2)
    assert ws.get("train").creator == "grace"
    other.close()


def test_numbers_beyond_all_columns_are_no_fault(ws: EnvironmentStore) -> None:
    add(ws, "train", 1)
    assert len(ws.history(before=10**30)) == 1
    assert ws.history(before=-(10**30)) == ()
    for limit in (-1, 10**30):
        with pytest.raises(WorkspaceError, match="is no number of lines"):
            ws.history(limit=limit)
    with pytest.raises(WorkspaceError, match="at most"):
        ws.add_image(image(70, size=10**30))


CLUSTER = TargetRecord(
    name="cluster", kind="kubernetes", options=(("namespace", "train"), ("registry", "r:5000"))
)


def new_run(name: str, **changed: object) -> NewRun:
    values: dict[str, object] = {
        "name": name,
        "target": "cluster",
        "kind": "kubernetes",
        "environment": "train",
        "version": "3",
        "definition": digest(1),
        "image": digest(11),
        "base_image": digest(10),
        "reference": f"r:5000/train@{digest(11)}",
        "code": digest(5),
        "command": ("python", "train.py"),
        "variables": ("TOKEN",),
        **changed,
    }
    return NewRun(**values)  # type: ignore[arg-type]


def test_targets_are_kept_by_name(ws: EnvironmentStore) -> None:
    laptop = TargetRecord(name="a-laptop", kind="local")
    ws.add_target(CLUSTER)
    ws.add_target(laptop)
    ws.add_target(CLUSTER)
    assert ws.targets() == (laptop, CLUSTER)
    assert ws.target("cluster") == CLUSTER
    with pytest.raises(WorkspaceError, match="there is a target cluster already, of the kind kubernetes"):
        ws.add_target(TargetRecord(name="cluster", kind="slurm"))
    ws.add_target(TargetRecord(name="cluster", kind="slurm"), replace=True)
    assert ws.target("cluster").kind == "slurm"
    with pytest.raises(WorkspaceError) as error:
        ws.target("clutser")
    assert said(error) == ("there is no target 'clutser'", "did you mean cluster?")
    ws.remove_target("cluster")
    assert ws.targets() == (laptop,)
    with pytest.raises(WorkspaceError, match="there is no target 'cluster'"):
        ws.remove_target("cluster")
    actions = [(event.action, event.detail["target"]) for event in ws.history()]
    assert actions == [
        ("untarget", "cluster"),
        ("target", "cluster"),
        ("target", "a-laptop"),
        ("target", "cluster"),
    ]


def test_run_is_kept_with_what_became_of_it(ws: EnvironmentStore) -> None:
    created = ws.add_run(new_run("train-1"))
    assert (created.status, created.identity, created.exit_status, created.ended) == (
        "created",
        "",
        None,
        None,
    )
    assert (created.actor, created.command, created.variables) == ("ada", ("python", "train.py"), ("TOKEN",))
    running = ws.update_run("train-1", "running", identity="pod/train-1")
    assert (running.status, running.identity, running.ended) == ("running", "pod/train-1", None)
    failed = ws.update_run("train-1", "failed", exit_status=3)
    assert (failed.status, failed.exit_status, failed.identity) == ("failed", 3, "pod/train-1")
    assert failed.ended is not None
    # Whoever comes later with another end doesn't change it.
    assert ws.update_run("train-1", "stopped") == failed
    assert ws.run("train-1") == failed
    assert [(event.action, event.environment, event.detail["run"]) for event in ws.history()] == [
        ("ended", "train", "train-1"),
        ("run", "train", "train-1"),
    ]


def test_runs_are_found_by_the_beginning_of_their_name(ws: EnvironmentStore) -> None:
    ws.add_run(new_run("train-1"))
    ws.add_run(new_run("train-12"))
    ws.add_run(new_run("other_2"))
    assert ws.run("train-1").name == "train-1"
    assert ws.run("oth").name == "other_2"
    with pytest.raises(WorkspaceError) as error:
        ws.run("train")
    assert said(error) == ("several runs begin with 'train'", "name one of them: train-12, train-1")
    with pytest.raises(WorkspaceError, match="there is no run 'x'"):
        ws.run("x")
    with pytest.raises(WorkspaceError, match="there is no run 'oth'"):
        ws.update_run("oth", "running")
    with pytest.raises(WorkspaceError, match="there is a run train-1 already"):
        ws.add_run(new_run("train-1"))


def test_runs_are_listed_newest_first(ws: EnvironmentStore) -> None:
    ws.add_run(new_run("a"))
    ws.add_run(new_run("b", version="4", image=digest(12)))
    ws.add_run(new_run("c", environment="other", target="laptop"))

    def names(**wanted: str | int) -> list[str]:
        return [run.name for run in ws.runs(**wanted)]  # type: ignore[arg-type]

    assert names() == ["c", "b", "a"]
    assert names(limit=2) == ["c", "b"]
    assert names(environment="train") == ["b", "a"]
    assert names(environment="train", version="4") == ["b"]
    assert names(target="laptop") == ["c"]
    assert names(image=digest(12)) == ["b"]
    # An environment's image leads to all that ran on it, whatever code was on top.
    assert names(image=digest(10)) == ["c", "b", "a"]


def test_facts_of_a_run_never_change(ws: EnvironmentStore, location: str) -> None:
    import sqlalchemy as sa

    ws.add_run(new_run("a"))
    url = location.replace("://", "+psycopg://") if "://" in location else f"sqlite:///{location}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    for statement in ("UPDATE envbuild_runs SET image = 'x'", "DELETE FROM envbuild_runs"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="what was run stays recorded"),
            engine.begin() as connection,
        ):
            connection.execute(sa.text(statement))
