import type { REASONS as ENGLISH } from './reasons-en.ts';

/** The same keys as in English. */
export const REASONS: Record<keyof typeof ENGLISH, string> = {
  'reason.namespace': '命名空间被排除',
  'reason.label': '带有标签 kube-registry/rewrite: "false"',
  'reason.selector': '被 Pod 选择器排除',
  'reason.operator': '由会比对镜像的 operator 管理',
  'reason.critical': '优先级为 system-critical',
  'reason.mirror': 'kubelet 的静态 Pod',
  'reason.windows': '可能运行在 Windows 上',
  'reason.virtual-node': '可能运行在虚拟节点上',
  'reason.never-pulled': 'imagePullPolicy: Never',
  'reason.placeholder': '由 Istio 替换的占位符',
  'reason.excluded-image': '镜像被排除',
  'reason.pull-secret': '带有不会被读取的 imagePullSecrets',
  'reason.private': 'Pod 的某个拉取 Secret 适用于它(webhook.pullSecrets: skip)',
  'reason.secret-missing': 'Pod 指定的拉取 Secret 不存在',
  'reason.secret-unusable': 'Pod 指定的拉取 Secret 无法读取',
  'reason.name-too-long': '名称会过长',
  'reason.other-registry': '没有上游提供此主机',
  'reason.no-reference': '不是镜像名',
  'reason.rewritten': '已改写',
  'reason.before': '创建时未被改写:重启 Pod 即可改写',
};
