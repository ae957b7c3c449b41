"""``envbuild prune``: only what is provably ours goes from a real registry, and all of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from envbuild.attest.attach import Attachments
from envbuild.attest.base import AttachedDocument
from envbuild.attest.sign import Signer, signature_tag
from envbuild.cli.call import Call
from envbuild.cli.main import main
from envbuild.errors import FetchError, PublishError
from envbuild.images.prune import RepositoryPruner
from envbuild.images.repository import identity_tag
from envbuild.images.sinks.registry import RegistrySink
from envbuild.oci.digest import canonical_json, digest_bytes
from envbuild.oci.image import Image, ImageSet
from envbuild.oci.manifest import IN_TOTO, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor
from envbuild.oci.reference import Reference
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform
from envbuild.progress import Silent
from envbuild.registry.referrers import AttachedArtifact, attach, fallback_tag, referrers
from envbuild.store.content import Store
from tests.fakes.image import Item, put_layer
from tests.fakes.registry import Registry
from tests.fakes.registry import serve as serve_fake
from tests.fakes.registry_server import RegistryServer, needs_registry, serve
from tests.integration.registry import make_client

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
pytestmark = needs_registry()


class World:
    """A repository, what is pushed to it, and how much time has passed: a day with each push."""

    def __init__(self, host: str, root: Path) -> None:
        self.repository = Reference.parse(f"{host}/team/demo")
        self.store = Store(root / "store")
        self.client = make_client(root, self.store)
        self.pruner = RepositoryPruner(self.client, self.repository)
        self.days = 0

    def image(
        self, number: int, platform: Platform = LINUX_AMD64, *, labels: bool = False, derived: bool = False
    ) -> Image:
        """An image as envbuild makes it; with ``labels`` only its config says so, as an engine leaves it.
        ``derived``: as buildah writes what it made of one, labels and annotations taken over."""
        layer = put_layer(self.store, [Item(name=f"opt/{number}", content=str(platform).encode())])
        lock = digest_bytes(f"lock {number} {platform}".encode())
        said = {"dev.envbuild.lock": lock}
        config = canonical_json(
            {
                "architecture": platform.architecture,
                "os": platform.os,
                "config": {"Labels": said} if labels or derived else {},
                "history": [{"created_by": "envbuild"}, *([{"created_by": "/bin/sh"}] if derived else [])],
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            }
        )
        config_digest = self.store.add_blob(config)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": len(config)},
            "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}],
            **({} if labels else {"annotations": said}),
        }
        manifest = json.dumps(document).encode() if derived else canonical_json(document)
        return Image(
            platform=platform,
            digest=self.store.add_blob(manifest),
            media_type=OCI_MANIFEST,
            size=len(manifest),
            config_digest=config_digest,
            layers=(layer,),
            lock_digest=lock,
            definition_digest=digest_bytes(b"definition"),
            level="L3",
        )

    def index(self, images: Sequence[Image]) -> str:
        entries = [
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": image.size,
                "platform": {"os": image.platform.os, "architecture": image.platform.architecture},
                "annotations": {"dev.envbuild.lock": image.lock_digest},
            }
            for image in images
        ]
        return self.store.add_blob(
            canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        )

    def push(
        self, *images: Image, tags: Sequence[str] = (), attested: bool = True, key: Path | None = None
    ) -> str:
        """The tag that one image, or the index of several, has now."""
        self.days += 1
        now = (START + timedelta(days=self.days)).timestamp()
        tag = identity_tag([image.lock_digest for image in images])
        publication = ImageSet(
            images=images,
            names=(f"demo:{tag}",),
            index_digest=self.index(images) if len(images) > 1 else None,
        )
        attachments = Attachments(
            self.client,
            self.store,
            Silent(),
            clock=lambda: now,
            documents=provenance_only if attested else None,
            signer=None if key is None else Signer.load(key, {}),
        )
        RegistrySink(
            remote=self.client,
            store=self.store,
            repository=self.repository,
            tags=[tag, *tags],
            attach=attachments,
        ).publish(publication)
        return tag

    def tag(self, name: str, image: Image) -> None:
        content = self.store.blob(image.digest).read_bytes()
        self.client.push_manifest(self.repository, content, image.media_type, name)

    def tags(self) -> set[str]:
        """Without those of what is attached."""
        return {tag for tag in self.client.tags(self.repository) if not tag.startswith("sha256-")}

    def has(self, digest: str) -> bool:
        """As another client sees it: without this one's store."""
        other = make_client(self.store.root.parent, Store(self.store.root.parent / f"look-{digest[7:19]}"))
        with other:
            return other.find_manifest(self.repository, digest) is not None

    def prune(self, keep: int, **more: timedelta) -> list[str]:
        """Tags of what was removed."""
        plan = self.pruner.plan(keep, now=START + timedelta(days=self.days), **more)
        return [each.tag for each in self.pruner.remove(plan)]


def provenance_only(image: Image, store: Store) -> list[AttachedDocument]:
    content = f"of {image.digest}".encode()
    return [
        AttachedDocument(name="provenance.json", media_type=IN_TOTO, artifact_type=IN_TOTO, content=content)
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with serve(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(params=["registry 2.8", "referrers API"])
def world(request: pytest.FixtureRequest, tmp_path: Path, server: RegistryServer) -> Iterator[World]:
    if request.param == "registry 2.8":
        found = World(server.host, tmp_path)
        # One server serves all tests, so each has a repository of its own.
        found.repository = Reference.parse(f"{server.host}/{tmp_path.name.lower().replace('_', '-')}/demo")
        found.pruner = RepositoryPruner(found.client, found.repository)
        with found.client:
            yield found
        return
    with serve_fake(Registry(referrers=True)) as registry:
        found = World(registry.host, tmp_path)
        with found.client:
            yield found


def test_the_newest_stay_and_the_others_go_with_all_that_is_attached(world: World, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    images = [world.image(number) for number in range(4)]
    tags = [world.push(image, key=key) for image in images]
    attached = [referrer.digest for referrer in referrers(world.client, world.repository, images[0].digest)]
    assert len(attached) == 1
    assert world.prune(2) == [tags[1], tags[0]]
    assert world.tags() == set(tags[2:])
    assert [world.has(image.digest) for image in images] == [False, False, True, True]
    assert not world.has(attached[0])
    left = set(world.client.tags(world.repository))
    for image, there in zip(images, (False, False, True, True), strict=True):
        assert (signature_tag(image.digest) in left) is there
        if not there:
            assert fallback_tag(image.digest) not in left
    assert len(referrers(world.client, world.repository, images[3].digest)) == 1


def test_planning_removes_nothing_and_says_why_each_stays(world: World) -> None:
    images = [world.image(number) for number in range(3)]
    tags = [world.push(image) for image in images]
    world.tag("latest", images[1])
    plan = world.pruner.plan(1, now=START)
    assert [(image.tag, image.kept) for image in plan.images] == [
        (tags[2], "one of the newest"),
        (tags[1], "latest names it"),
        (tags[0], ""),
    ]
    assert [image.pushed for image in plan.images] == [START + timedelta(days=day) for day in (3, 2, 1)]
    assert plan.others == ("latest",)
    assert world.tags() == {*tags, "latest"}


def test_what_anybody_else_tagged_is_never_touched(world: World) -> None:
    mine, theirs = world.image(1), world.image(2)
    tag = world.push(mine)
    # It looks like one of ours, but its lock says another tag.
    world.push(theirs)
    world.tag("0123456789ab", theirs)
    world.tag("v3", theirs)
    world.tag("segment-of-somebody", theirs)
    assert world.prune(0) == [tag]
    assert world.has(theirs.digest)
    assert {"0123456789ab", "v3", "segment-of-somebody"} <= world.tags()


def test_an_index_goes_with_its_images_but_for_those_that_are_needed(world: World) -> None:
    amd, arm = world.image(1), world.image(1, LINUX_ARM64)
    old = world.push(amd, arm)
    index = world.index([amd, arm])
    alone = world.push(amd, tags=["v1"])
    assert world.prune(0) == [old]
    assert world.tags() == {alone, "v1"}
    assert [world.has(each) for each in (index, amd.digest, arm.digest)] == [False, True, False]


def test_what_a_kept_index_lists_stays(world: World) -> None:
    amd, arm = world.image(1), world.image(1, LINUX_ARM64)
    alone = world.push(amd)
    both = world.push(amd, arm)
    plan = world.pruner.plan(1, now=START)
    # An index is as new as the newest image in it.
    assert {image.tag: image.kept for image in plan.images} == {
        both: "one of the newest",
        alone: f"part of {both}",
    }
    assert world.prune(1) == []
    assert len(referrers(world.client, world.repository, amd.digest)) == 1


def test_an_image_without_a_time_is_the_oldest_but_has_no_age(world: World) -> None:
    unknown = world.push(world.image(1), attested=False)
    first, second = world.push(world.image(2)), world.push(world.image(3))
    plan = world.pruner.plan(0, now=START)
    assert [(image.tag, image.pushed is None) for image in plan.images] == [
        (second, False),
        (first, False),
        (unknown, True),
    ]
    plan = world.pruner.plan(0, now=START + timedelta(days=4), older_than=timedelta(days=1))
    assert [(image.tag, image.kept) for image in plan.images] == [
        (second, "not that old"),
        (first, ""),
        (unknown, "nobody knows how old it is"),
    ]
    assert world.prune(2) == [unknown]


def test_an_image_whose_config_alone_has_the_label_is_ours(world: World) -> None:
    tag = world.push(world.image(1, labels=True))
    assert world.prune(0) == [tag]


@pytest.mark.parametrize("labels", [False, True])
def test_an_image_that_others_made_of_ours_stays_whatever_its_tag(world: World, labels: bool) -> None:
    tag = world.push(world.image(1, labels=labels, derived=True))
    assert world.prune(0) == []
    assert world.tags() == {tag}


def test_an_image_that_gets_a_tag_after_the_plan_stays(world: World) -> None:
    first, second = world.image(1), world.image(2)
    tags = [world.push(first), world.push(second)]
    plan = world.pruner.plan(0, now=START)
    world.tag("v1", first)
    assert [each.tag for each in world.pruner.remove(plan)] == [tags[1]]
    assert world.tags() == {tags[0], "v1"}


def test_two_prunes_at_once_end_as_one(world: World) -> None:
    tags = [world.push(world.image(number)) for number in range(3)]
    one, two = world.pruner.plan(1, now=START), world.pruner.plan(1, now=START)
    removing = world.pruner.remove(one)
    assert next(removing).tag == tags[1]
    assert [each.tag for each in world.pruner.remove(two)] == [tags[0]]
    assert list(removing) == []
    assert world.tags() == {tags[2]}


def test_a_prune_that_was_interrupted_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    amd, arm = world.image(1), world.image(1, LINUX_ARM64)
    tag = world.push(amd, arm)
    attached = [
        referrer.digest
        for image in (amd, arm)
        for referrer in referrers(world.client, world.repository, image.digest)
    ]
    really = world.client.delete
    done: list[str] = []

    def breaks(reference: Reference, target: str) -> None:
        if done:
            raise FetchError("the line is cut")
        done.append(target)
        really(reference, target)

    with monkeypatch.context() as patched:
        patched.setattr(world.client, "delete", breaks)
        with pytest.raises(FetchError, match="the line is cut"):
            world.prune(0)
    assert world.tags() == {tag}
    assert world.prune(0) == [tag]
    for digest in (amd.digest, arm.digest, *attached):
        assert not world.has(digest)


def test_what_is_attached_to_what_is_attached_goes_too(world: World) -> None:
    image = world.image(1)
    world.push(image)
    (provenance,) = referrers(world.client, world.repository, image.digest)
    subject = Descriptor(digest=provenance.digest, size=provenance.size, media_type=provenance.media_type)
    note = AttachedArtifact(
        name="note", artifact_type="text/x-note", media_type="text/plain", content=b"good"
    )
    (above,) = attach(world.client, world.store, world.repository, subject, [note])
    world.prune(0)
    assert not world.has(above)
    assert not world.has(provenance.digest)


def test_an_empty_repository_has_nothing_to_prune(world: World) -> None:
    plan = world.pruner.plan(0, now=START)
    assert (plan.images, plan.others) == ((), ())


def test_a_registry_that_deletes_nothing_says_so(tmp_path: Path) -> None:
    with serve_fake(Registry(deletes=False)) as registry:
        world = World(registry.host, tmp_path)
        with world.client:
            tag = world.push(world.image(1))
            with pytest.raises(PublishError, match=r"doesn't delete images \(HTTP 405\)") as error:
                world.prune(0)
            assert error.value.hint is not None
            assert "storage.delete.enabled" in error.value.hint
            assert world.tags() == {tag}


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    import sys

    call = Call(
        environ={"HOME": str(tmp_path), "ENVBUILD_CACHE_DIR": str(tmp_path / "store")},
        cwd=tmp_path,
        stdout=sys.stdout,
        stderr=sys.stderr,
    )
    status = main(["prune", *arguments], call=call)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_is_a_dry_run_until_told_otherwise(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = [world.push(world.image(number)) for number in range(2)]
    name = world.repository.name
    status, out, err = run(tmp_path, capsys, name, "--keep", "1")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{tags[1]}  2026-01-03 00:00  {world.image(1).digest[:19]}  keep: one of the newest",
        f"{tags[0]}  2026-01-02 00:00  {world.image(0).digest[:19]}  remove",
        "would remove 1 image, 1 left; 0 tags not envbuild's own",
    ]
    assert world.tags() == set(tags)
    status, out, err = run(tmp_path, capsys, name, "--keep", "1", "--yes", "--json")
    assert status == 0
    assert json.loads(out) == {
        "repository": name,
        "dry_run": False,
        "removed": [{"tag": tags[0], "digest": world.image(0).digest, "pushed": "2026-01-02T00:00:00Z"}],
        "kept": [
            {
                "tag": tags[1],
                "digest": world.image(1).digest,
                "pushed": "2026-01-03T00:00:00Z",
                "why": "one of the newest",
            }
        ],
        "others": [],
    }
    assert err == f"removed {tags[0]} {world.image(0).digest}\n"
    assert world.tags() == {tags[1]}


def test_an_image_is_no_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(tmp_path, capsys, "localhost:5000/app:v1", "--keep", "1")
    assert (status, out) == (2, "")
    assert "'localhost:5000/app:v1' is an image, not a repository" in err
