{{/* A role with its binding: (dict "root" . "component" … "kind" "Role" "name" … "namespace" … "rules" …), the rules as text. */}}
{{- define "affix.role" -}}
{{- $metadata := include "affix.metadata" (merge (dict "cluster" (eq .kind "ClusterRole")) .) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  {{- $metadata | nindent 2 }}
rules:
{{ .rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  {{- $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "affix.serviceAccountName" . }}
  namespace: {{ include "affix.namespace" .root }}
{{- end }}

{{/* The rules of a controller in the cluster, or in each namespace that it watches. */}}
{{- define "affix.controllerRules" -}}
- apiGroups: [affix.dev]
  resources: [imageattachments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [affix.dev]
  resources: [imageattachmentsets]
  verbs: [get, list, watch]
- apiGroups: [affix.dev]
  resources: [imageattachments/status, imageattachmentsets/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion, where the API server checks them, as OpenShift's does.
- apiGroups: [affix.dev]
  resources: [imageattachmentsets/finalizers]
  verbs: [update]
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

{{/* The rules for tokens of ServiceAccounts. */}}
{{- define "affix.tokenRules" -}}
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
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

{{/* The rules of a controller in its own namespace. RBAC cannot restrict a create to a name. */}}
{{- define "affix.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "affix.lease" . }}]
  verbs: [get, update]
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [{{ include "affix.fullname" . }}-controller]
  verbs: [get]
{{- if .Values.watchNamespaces }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
{{- end }}
