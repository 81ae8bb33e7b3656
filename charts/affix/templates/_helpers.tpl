{{/* The chart's name, or nameOverride. */}}
{{- define "affix.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all object names, short enough for the longest suffix. */}}
{{- define "affix.fullname" -}}
{{- $name := include "affix.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The selector labels of a component: (dict "root" . "component" "controller"). */}}
{{- define "affix.selector" -}}
app.kubernetes.io/name: {{ include "affix.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels of an object of a component. */}}
{{- define "affix.labels" -}}
{{ include "affix.selector" . }}
app.kubernetes.io/part-of: affix
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "affix.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The name of a component's ServiceAccount. */}}
{{- define "affix.serviceAccountName" -}}
{{- $values := index .root.Values .component }}
{{- if $values.serviceAccount.name }}
{{- $values.serviceAccount.name }}
{{- else if $values.serviceAccount.create }}
{{- printf "%s-%s" (include "affix.fullname" .root) .component }}
{{- else -}}
default
{{- end }}
{{- end }}

{{/* The registry flags of both components. */}}
{{- define "affix.registryArgs" -}}
- --insecure-allow-http={{ .Values.registries.allowHttp }}
- --allow-loopback={{ .Values.registries.allowLoopback }}
- --deny-private-networks={{ .Values.registries.denyPrivateNetworks }}
- --max-requests-per-registry={{ .Values.registries.maxRequestsPerRegistry }}
{{- with .Values.registries.allowed }}
- --allowed-registries={{ join "," . }}
{{- end }}
{{- end }}

{{/* The environment of both components. */}}
{{- define "affix.env" -}}
- name: RUST_LOG
  value: {{ .root.Values.log.level | quote }}
- name: {{ ternary "RUNTIME_NAMESPACE" "POD_NAMESPACE" (eq .component "controller") }}
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with (index .root.Values .component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The container settings of the restricted Pod Security profile, and a read-only root file system. */}}
{{- define "affix.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "affix.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The metadata of a pod template. */}}
{{- define "affix.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "affix.selector" . | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The pod settings of both components. */}}
{{- define "affix.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "affix.serviceAccountName" . }}
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  {{- include "affix.podSecurity" . | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int $values.replicas) 1 }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "affix.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The probes of both components. */}}
{{- define "affix.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
{{- end }}

{{/* A binding: (dict "root" . "component" … "kind" "Role" "name" … "namespace" …). */}}
{{- define "affix.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "affix.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "affix.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* A role with its binding: the above and "rules", as text. */}}
{{- define "affix.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "affix.labels" . | nindent 4 }}
rules:
{{ .rules }}
---
{{ include "affix.binding" . }}
{{- end }}

{{/* The rules of a controller in the cluster, or in each namespace that it watches. */}}
{{- define "affix.controllerRules" -}}
- apiGroups: [affix.dev]
  resources: [imageattachments]
  verbs: [get, list, watch, patch]
- apiGroups: [affix.dev]
  resources: [imageattachments/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  verbs: {{ include "affix.readVerbs" . }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* The rules on Secrets. A controller watches either the whole cluster or each of its namespaces. */}}
{{- define "affix.secretRules" -}}
{{- $apart := and (eq .Values.rbac.secrets "namespaces") (empty .Values.watchNamespaces) -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: {{ ternary "[get]" (include "affix.readVerbs" .) $apart }}
{{- end }}

{{/* Read by name only, or also watch for changes. */}}
{{- define "affix.readVerbs" -}}
{{ ternary "[get, list, watch]" "[get]" .Values.rbac.watchRotation }}
{{- end }}

{{/*
The roles of a component in the cluster or in each of some namespaces: its "rules", and its "secretRules" in the namespaces whose Secrets it
may read. A component never reads Secrets outside of the namespaces that affix watches.
*/}}
{{- define "affix.roles" -}}
{{- $name := printf "%s-%s" (include "affix.fullname" .root) .component }}
{{- $rbac := .root.Values.rbac }}
{{- $own := list }}
{{- if eq $rbac.secrets "namespaces" }}
{{- $own = $rbac.secretNamespaces }}
{{- else if and (eq $rbac.secrets "cluster") (empty .namespaces) }}
{{- $own = .root.Values.watchNamespaces }}
{{- end }}
{{- $rules := ternary (printf "%s\n%s" .rules .secretRules) .rules (and (eq $rbac.secrets "cluster") (empty $own)) }}
{{- range .namespaces }}
---
{{ include "affix.role" (merge (dict "kind" "Role" "name" $name "namespace" . "rules" $rules) $) }}
{{- else }}
---
{{ include "affix.role" (merge (dict "kind" "ClusterRole" "name" $name "namespace" "" "rules" $rules) .) }}
{{- end }}
{{- range $own }}
---
{{ include "affix.role" (merge (dict "kind" "Role" "name" (printf "%s-secrets" $name) "namespace" . "rules" $.secretRules) $) }}
{{- end }}
{{- end }}

{{/* The egress rules of the pods. */}}
{{- define "affix.egress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
- ports:
  {{- range .Values.networkPolicy.egressPorts }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}

{{/* The name of the Lease for leader election. With a label selector, affix appends a hash of it. */}}
{{- define "affix.lease" -}}
{{- $name := printf "%s-controller" (include "affix.fullname" .) }}
{{- if .Values.watchLabelSelector }}
{{- printf "%s-%s" $name (.Values.watchLabelSelector | sha256sum | trunc 8) }}
{{- else }}
{{- $name }}
{{- end }}
{{- end }}

{{/* The rules of a controller in its own namespace. RBAC cannot restrict a create to a name. */}}
{{- define "affix.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "affix.lease" . }}]
  verbs: [get, update]
{{- end }}

{{/* A PodDisruptionBudget for more than one replica, and a NetworkPolicy if enabled. */}}
{{- define "affix.disruptionBudget" -}}
{{- if gt (int (index .root.Values .component).replicas) 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "affix.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "affix.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "affix.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "affix.networkPolicy" -}}
{{- if .root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "affix.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "affix.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "affix.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
  - ports:
    - {protocol: TCP, port: metrics}
    {{- with .root.Values.networkPolicy.metricsFrom }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # For the kubelet's probes and the API server, which has no address that a policy could name.
  - ports:
    {{- range .open }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  egress:
  {{- include "affix.egress" .root | nindent 2 }}
{{- end }}
{{- end }}

{{/* The ServiceAccount of a component. */}}
{{- define "affix.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "affix.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "affix.labels" . | nindent 4 }}
  {{- with $account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
