import { mkdir, writeFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { debianTool, toolPath } from '../tools/tools.ts';
import { accepts, startService } from '../support/process.ts';
import { freePort, temporaryDirectory } from '../support/temporary.ts';
import { KEYS, serverOf, startGofakes3, type S3Server } from './gofakes3.ts';
import { startVersitygw } from '../support/versitygw.ts';

async function startRclone(): Promise<S3Server> {
  const temporary = await temporaryDirectory();
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const service = await startService({
    command: await toolPath('rclone'),
    args: [
      'serve',
      's3',
      temporary.path,
      '--addr',
      address,
      '--config',
      '/dev/null',
      '--no-cleanup',
      '--auth-key',
      `${KEYS.accessKeyId},${KEYS.secretAccessKey}`,
    ],
    ready: () => accepts(address),
  });
  return serverOf(port, service, () => Promise.resolve(temporary[Symbol.asyncDispose]()));
}

async function startSeaweedfs(): Promise<S3Server> {
  const temporary = await temporaryDirectory();
  const [master, volume, filer, port] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const grpc = [await freePort(), await freePort(), await freePort(), await freePort()];
  const config = join(temporary.path, 's3.json');
  const { accessKeyId: accessKey, secretAccessKey: secretKey } = KEYS;
  const actions = ['Admin', 'Read', 'List', 'Tagging', 'Write'];
  await writeFile(config, JSON.stringify({ identities: [{ name: 'test', credentials: [{ accessKey, secretKey }], actions }] }));
  const service = await startService({
    command: await toolPath('seaweedfs'),
    args: [
      'server',
      '-s3',
      `-dir=${temporary.path}`,
      '-ip=127.0.0.1',
      '-ip.bind=127.0.0.1',
      `-master.port=${master}`,
      `-master.port.grpc=${grpc[0]}`,
      '-master.volumeSizeLimitMB=64',
      `-volume.port=${volume}`,
      `-volume.port.grpc=${grpc[1]}`,
      '-volume.max=100',
      `-filer.port=${filer}`,
      `-filer.port.grpc=${grpc[2]}`,
      `-s3.port=${port}`,
      `-s3.port.grpc=${grpc[3]}`,
      `-s3.config=${config}`,
    ],
    cwd: temporary.path,
    ready: () => accepts(`127.0.0.1:${port}`),
  });
  return serverOf(port, service, () => Promise.resolve(temporary[Symbol.asyncDispose]()));
}

async function startS3Proxy(): Promise<S3Server> {
  const temporary = await temporaryDirectory();
  const port = await freePort();
  const config = join(temporary.path, 's3proxy.conf');
  const objects = join(temporary.path, 'objects');
  await mkdir(objects);
  const properties = {
    's3proxy.endpoint': `http://127.0.0.1:${port}`,
    's3proxy.authorization': 'aws-v2-or-v4',
    's3proxy.identity': KEYS.accessKeyId,
    's3proxy.credential': KEYS.secretAccessKey,
    'jclouds.provider': 'filesystem-nio2',
    'jclouds.identity': 'none',
    'jclouds.credential': 'none',
    'jclouds.filesystem.basedir': objects,
  };
  await writeFile(
    config,
    Object.entries(properties)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const jars = await toolPath('s3proxy');
  const service = await startService({
    command: await debianTool('java'),
    args: ['-Xmx512m', '-cp', join(jars, '*'), 'org.gaul.s3proxy.Main', '--properties', config],
    ready: () => accepts(`127.0.0.1:${port}`),
  });
  return serverOf(port, service, () => Promise.resolve(temporary[Symbol.asyncDispose]()));
}

const LIFECYCLE_DAY_SECONDS = 2;

/** A monitor, one storage daemon that keeps everything in memory, and the gateway, for whose
 *  lifecycle rules a day is LIFECYCLE_DAY_SECONDS long. */
export async function startCeph(): Promise<S3Server> {
  const temporary = await temporaryDirectory();
  const [monitor, port] = [await freePort(), await freePort()];
  const path = (name: string): string => join(temporary.path, name);
  const config = path('ceph.conf');
  const fsid = randomUUID();
  const settings = {
    fsid,
    mon_host: `[v1:127.0.0.1:${monitor}]`,
    public_addr: '127.0.0.1',
    auth_cluster_required: 'none',
    auth_service_required: 'none',
    auth_client_required: 'none',
    mon_data: path('mon'),
    osd_data: path('osd'),
    rgw_data: path('rgw'),
    run_dir: temporary.path,
    admin_socket: path('$name.sock'),
    log_file: path('$name.log'),
    osd_objectstore: 'memstore',
    memstore_device_bytes: 4 * 2 ** 30,
    osd_pool_default_size: 1,
    osd_pool_default_min_size: 1,
    osd_pool_default_pg_num: 1,
    osd_pool_default_pgp_num: 1,
    osd_pool_default_pg_autoscale_mode: 'off',
    osd_crush_chooseleaf_type: 0,
    mon_allow_pool_size_one: true,
    mon_pg_warn_min_per_osd: 0,
    rgw_lc_debug_interval: LIFECYCLE_DAY_SECONDS,
    rgw_frontends: `beast endpoint=127.0.0.1:${port}`,
  };
  await writeFile(
    config,
    `[global]\n${Object.entries(settings)
      .map(([key, value]) => `${key} = ${value}\n`)
      .join('')}`,
  );
  for (const name of ['mon', 'osd', 'rgw']) await mkdir(path(name));
  const run = async (program: 'ceph' | 'ceph-mon' | 'ceph-osd' | 'radosgw-admin', ...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)(await debianTool(program), ['--conf', config, ...args], { timeout: 60_000 });
    return stdout.trim();
  };
  const map = path('monmap');
  await promisify(execFile)(await debianTool('monmaptool'), ['--create', '--addv', 'a', settings.mon_host, '--fsid', fsid, map]);
  await run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map);
  const mon = await startService({
    command: await debianTool('ceph-mon'),
    args: ['--conf', config, '-f', '-i', 'a'],
    ready: () => accepts(`127.0.0.1:${monitor}`),
  });
  await run('ceph', 'osd', 'create');
  await run('ceph', 'osd', 'crush', 'add', 'osd.0', '1', 'root=default', 'host=here');
  await run('ceph-osd', '-i', '0', '--mkfs');
  const osd = await startService({
    command: await debianTool('ceph-osd'),
    args: ['--conf', config, '-f', '-i', '0'],
    ready: async () => (await run('ceph', 'osd', 'stat')).includes('1 up'),
  });
  await run(
    'radosgw-admin',
    'user',
    'create',
    '--uid=test',
    '--display-name=test',
    '--access-key',
    KEYS.accessKeyId,
    '--secret',
    KEYS.secretAccessKey,
  );
  const service = await startService({
    command: await debianTool('radosgw'),
    args: ['--conf', config, '-f', '-n', 'client.rgw.here'],
    ready: () => accepts(`127.0.0.1:${port}`),
  });
  return serverOf(port, service, async () => {
    await osd[Symbol.asyncDispose]();
    await mon[Symbol.asyncDispose]();
    await temporary[Symbol.asyncDispose]();
  });
}

/** The servers that the S3 store is tried over, by name and version. */
export const S3_SERVERS: Record<string, () => Promise<S3Server>> = {
  'versitygw 1.8.0': () => startVersitygw(),
  'gofakes3 1.2.0': startGofakes3,
  'rclone 1.76.0': startRclone,
  'S3Proxy 4.1.0': startS3Proxy,
  'Ceph RGW 16.2 (Debian 12)': startCeph,
  'SeaweedFS 4.53': startSeaweedfs,
};
