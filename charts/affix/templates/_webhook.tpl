{{/* The Secret with the webhook's certificate. */}}
{{- define "affix.certificateSecret" -}}
{{- .Values.webhook.certificate.secretName | default (printf "%s-webhook-tls" (include "affix.fullname" .)) }}
{{- end }}

{{- define "affix.webhookMetadata" -}}
name: {{ include "affix.fullname" . }}-webhook
labels:
  {{- include "affix.labels" (dict "root" . "component" "webhook") | nindent 2 }}
{{- if eq .Values.webhook.certificate.mode "cert-manager" }}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "affix.fullname" . }}-webhook
{{- end }}
{{- end }}

{{/*
The settings of all webhooks: (dict "root" . "path" … "label" …). The release's own namespace is exempt by its name, which no other
namespace can have. Labels only enable checks.
*/}}
{{- define "affix.webhook" -}}
{{- $w := .root.Values.webhook -}}
clientConfig:
  service:
    name: {{ include "affix.fullname" .root }}-webhook
    namespace: {{ .root.Release.Namespace }}
    path: {{ .path }}
    port: 443
  {{- if eq $w.certificate.mode "secret" }}
  caBundle: {{ $w.certificate.caBundle | b64enc }}
  {{- end }}
matchPolicy: Equivalent
sideEffects: None
failurePolicy: {{ $w.failurePolicy }}
timeoutSeconds: {{ $w.timeoutSeconds }}
admissionReviewVersions: [v1]
namespaceSelector:
  matchExpressions:
  {{- with .label }}
  - {{ toYaml . | nindent 4 | trim }}
  {{- end }}
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- toYaml (prepend $w.excludedNamespaces .root.Release.Namespace) | nindent 6 }}
{{- end }}

{{/* The rules for the status of ImageAttachments and the labels of namespaces. */}}
{{- define "affix.webhookRules" -}}
- apiGroups: [affix.dev]
  resources: [imageattachments]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}

{{/* The rules for the pull secrets of pods. */}}
{{- define "affix.webhookSecretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}

{{/* The rules for the Secret that the replicas share. RBAC cannot restrict a create to a name. */}}
{{- define "affix.certificateRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "affix.certificateSecret" . }}]
  verbs: [get, update]
{{- end }}

{{/* The rules for the caBundle of its own configurations. */}}
{{- define "affix.bundleRules" -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [{{ include "affix.fullname" . }}-webhook]
  verbs: [get, patch]
{{- end }}
