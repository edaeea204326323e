"""The form of a stored endpoint. It takes a key and never shows one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from workers.endpoints.registry import Endpoint
from workers.endpoints.stored.changes import SECRET_FIELDS, SETTINGS, EndpointRefused
from zelo_site.pages.forms import PageForm

MOST_URL, MOST_KEY = 2000, 4096
# The fields of the form's sections, in their order.
REQUEST = ("key_header", "key_prefix", "headers", "query")
PRICES = ("input_price", "output_price")
LIMITS = ("max_concurrency", "rpm", "tpm", "timeout_s", "limits_per_model")


class NameValueLines(forms.CharField):
    """Names with values, a line each: `X-Name: value`; its cleaned value is a dict, None if nothing was written."""

    is_text_area = True

    def clean(self, value: Any) -> Any:
        lines = [line.strip() for line in str(super().clean(value) or "").splitlines() if line.strip()]
        found: dict[str, str] = {}
        for line in lines:
            name, colon, text = line.partition(":")
            if not colon or not name.strip() or not text.strip():
                raise ValidationError(_("Write each line as “Name: value”."))
            found[name.strip()] = text.strip()
        return found or None


class EndpointForm(PageForm):
    """Address, key, prices and limits. An empty key keeps the stored one."""

    base_url = forms.CharField(
        label=gettext_lazy("Base URL"),
        max_length=MOST_URL,
        help_text=gettext_lazy("Address up to, not including, /chat/completions."),
    )
    key = forms.CharField(label=gettext_lazy("API key"), max_length=MOST_KEY, required=False)
    remove_key = forms.BooleanField(label=gettext_lazy("Remove the key"), required=False)
    key_header = forms.CharField(
        label=gettext_lazy("Header of the key"),
        max_length=100,
        required=False,
        help_text=gettext_lazy("Most servers read Authorization; Azure reads api-key."),
    )
    key_prefix = forms.CharField(
        label=gettext_lazy("Before the key"),
        max_length=40,
        required=False,
        strip=False,
        help_text=gettext_lazy("Empty: “Bearer ” in the header Authorization, nothing in others."),
    )
    headers = NameValueLines(
        label=gettext_lazy("Further headers"),
        required=False,
        help_text=gettext_lazy("One per line: “Name: value”. Values are encrypted and never shown again."),
    )
    query = NameValueLines(
        label=gettext_lazy("Query parameters"),
        required=False,
        help_text=gettext_lazy("One per line: “name: value”. Values are encrypted and never shown again."),
    )
    remove_values = forms.BooleanField(label=gettext_lazy("Remove further headers and query"), required=False)
    input_price = forms.FloatField(
        label=gettext_lazy("Input price"), required=False, help_text=gettext_lazy("Dollars per million tokens.")
    )
    output_price = forms.FloatField(
        label=gettext_lazy("Output price"), required=False, help_text=gettext_lazy("Dollars per million tokens.")
    )
    max_concurrency = forms.IntegerField(
        label=gettext_lazy("Concurrent calls"), required=False, help_text=gettext_lazy("Of all workers together.")
    )
    rpm = forms.FloatField(
        label=gettext_lazy("Requests per minute"), required=False, help_text=gettext_lazy("Empty: no limit.")
    )
    tpm = forms.FloatField(
        label=gettext_lazy("Tokens per minute"), required=False, help_text=gettext_lazy("Empty: no limit.")
    )
    timeout_s = forms.FloatField(
        label=gettext_lazy("Timeout in seconds"),
        required=False,
        help_text=gettext_lazy("Total time of one call, from the first byte to the last."),
    )
    limits_per_model = forms.BooleanField(
        label=gettext_lazy("Limits for each model"),
        required=False,
        help_text=gettext_lazy("The limits hold for each model separately, as some providers count."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("key_header", "max_concurrency", "timeout_s", "input_price", "output_price"):
            self.fields[name].initial = Endpoint.model_fields[name].default

    def endpoint_values(self) -> dict[str, Any]:
        """Return the values for `workers.endpoints.stored.changes`; empty fields take the defaults, empty secrets stay."""
        values: dict[str, Any] = {"base_url": self.cleaned_data["base_url"]}
        for name in SETTINGS:
            given = self.cleaned_data.get(name)
            values[name] = Endpoint.model_fields[name].default if given in (None, "") else given
        removed = self.cleaned_data["remove_values"]
        for name in SECRET_FIELDS:
            found = self.cleaned_data.get(name) or ({} if removed else None)
            if found is not None:
                values[name] = found
        return values

    def refuse(self, error: Exception) -> None:
        """Show a refused change at its field, or above the form."""
        if isinstance(error, EndpointRefused):
            self.add_error(error.field if error.field in self.fields else None, str(error))
        elif not self.errors:
            self.add_error(None, str(error))


class NewEndpointForm(EndpointForm):
    """The form of a new endpoint, with its name."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=80,
        help_text=gettext_lazy("Letters, digits, dots and hyphens; projects choose by it. It cannot be changed later."),
    )
