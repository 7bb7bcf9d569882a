from __future__ import annotations
import subprocess, json
import pytest
from pathlib import Path
from laptop.conformance.aws_site import PULUMI, AwsSite, aws_site
from laptop.conformance.control_plane import ControlPlane
from laptop.conformance.run_record import ROOT
from tests.infra.recording import edit, release_everywhere
pytestmark = pytest.mark.needs(*PULUMI)

def test_migration(tmp_path_factory, control_plane):
    with aws_site(tmp_path_factory.mktemp("site"), ROOT, control_plane) as site:
        site.bootstrap()
        release_everywhere(site.root)
        old = "ab9a9ce"
        tar = subprocess.run(["git","-C",str(ROOT),"archive",old,"infra","pipelines/declarations"],capture_output=True,check=True).stdout
        new = subprocess.run(["git","-C",str(ROOT),"archive","HEAD","infra","pipelines/declarations"],capture_output=True,check=True).stdout
        acct=(site.root/"infra/bootstrap/Pulumi.account.yaml").read_text()
        subprocess.run(["tar","x"],input=tar,cwd=site.root,check=True)
        (site.root/"infra/bootstrap/Pulumi.account.yaml").write_text(acct)
        print(site.mlops("up","--env","dev",who="dev")[-1500:])
        subprocess.run(["rm","-rf","infra","pipelines/declarations"],cwd=site.root,check=True)
        subprocess.run(["tar","x"],input=new,cwd=site.root,check=True)
        (site.root/"infra/bootstrap/Pulumi.account.yaml").write_text(acct)
        print("PREVIEW", site.mlops("preview","--env","dev",who="preview")[-3000:])
        print("UP", site.mlops("up","--env","dev",who="dev")[-3000:])
        site.use("dev","preview")
        print("AGAIN", site.done("pulumi","preview","--stack","dev","--refresh","--expect-no-changes","--non-interactive",who="preview")[-1500:])
        edit(site.root/"Pulumi.dev.yaml","config","mlops:environment","namespace",value="other")
        print("MOVED", site.refused("up","--env","dev",who="dev")[-1500:])
        edit(site.root/"Pulumi.dev.yaml","config","mlops:environment","namespace",value="models-dev")
        # typed by hand, with a kubeconfig that leads elsewhere
        (site.home/"elsewhere").write_text("clusters: []\n")
        r=site.run("pulumi","preview","--stack","dev","--non-interactive",who="dev",more={"KUBECONFIG":str(site.home/"elsewhere")})
        print("ELSEWHERE", r.returncode, r.stdout[-1500:])
        print("DESTROY", site.mlops("destroy","--env","dev","--confirm","dev",who="dev")[-800:])
